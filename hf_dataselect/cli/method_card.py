"""Everything known about a method or a policy, for `hf-dataselect methods NAME`: imports it."""

import dataclasses
import inspect
from typing import Any

from ..budget import Budget
from ..declared import policy_names
from ..options import imported_class
from ..policy import Policy
from ..registry import GIVEN_BY, policy_class, selector_class
from ..selector import Selector, documentation, method_name
from .console import checked, say


def show(name: str) -> None:
    """Print the card of a method or a policy."""
    kind = checked(_kind, name)
    if issubclass(kind, Policy):
        say(card_text(name, kind, [], "selection_policy_kwargs"))
    else:
        say(method_card(kind))


def _kind(name: str) -> type[Policy] | type[Selector]:
    """The class of a method or a policy, which may be in a module of the user's own."""
    if ":" in name:
        return imported_class(name, (Selector, Policy), f"{name!r}")
    return policy_class(name) if name in policy_names() else selector_class(name)


def card_text(name: str, kind: type[Policy] | type[Selector], more: list[str], option: str) -> str:
    """A module's docstring, the card, and the options that are given by `option`."""
    card: Any = kind.card
    lines = [name, "", inspect.cleandoc(inspect.getmodule(kind).__doc__ or ""), ""]
    for field in dataclasses.fields(card):
        value = getattr(card, field.name)
        if isinstance(value, tuple):
            value = "; ".join(value) or "none"
        lines.append(f"{field.name.replace('_', ' ')}: {value}")
    lines += more
    lines += ["", f"Options (`{option}`):"]
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            made = field.default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING
            lines.append(f"  {field.name} = {field.default_factory() if made else field.default!r}")
    lines += ["", documentation(kind)]
    return "\n".join(lines)


def method_card(kind: type[Selector]) -> str:
    """Everything known about a method: its module's docstring, its card, what it needs, and its options."""
    lines: list[str] = []
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
    return card_text(method_name(kind), kind, lines, "selection_kwargs")
