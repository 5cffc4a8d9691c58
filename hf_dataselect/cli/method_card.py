"""Everything known about a method, for `hf-dataselect methods NAME`: imports the method."""

import dataclasses
import inspect

from ..budget import Budget
from ..registry import GIVEN_BY, selector_class
from ..selector import Selector, documentation, method_name
from .console import checked, say


def show(name: str) -> None:
    """Print the card of a method."""
    say(method_card(checked(selector_class, name)))


def method_card(kind: type[Selector]) -> str:
    """Everything known about a method: its module's docstring, its card and its options."""
    card = kind.card
    lines = [method_name(kind), "", inspect.cleandoc(inspect.getmodule(kind).__doc__ or ""), ""]
    for field in dataclasses.fields(card):
        value = getattr(card, field.name)
        if isinstance(value, tuple):
            value = "; ".join(value) or "none"
        lines.append(f"{field.name.replace('_', ' ')}: {value}")
    try:
        selector = kind()
    except (TypeError, ValueError):  # options without defaults
        selector = None
    if selector is not None:
        own = "the method's own" if selector.spreads_out else "by `selection_diversity`, after the ranking"
        needs = [f"{need} (`{GIVEN_BY[need]}`)" if need in GIVEN_BY else need for need in sorted(selector.needs())]
        lines.append(f"needs: {'; '.join(needs) or 'none'}")
        lines.append(f"budget (`selection_budget`): {Budget.parse(selector.default_budget)}, where none is given")
        lines.append(f"diversity: {'all rows are kept' if selector.fixed_budget else own}")
    lines += ["", "Options (`selection_kwargs`):"]
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            made = field.default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING
            lines.append(f"  {field.name} = {field.default_factory() if made else field.default!r}")
    lines += ["", documentation(kind)]
    return "\n".join(lines)
