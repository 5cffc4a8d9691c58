"""`hf-dataselect methods`: the cards of the methods, or one in full."""

import argparse
import dataclasses
import inspect
from collections.abc import Sequence

from ..budget import Budget
from ..registry import method_names, selector_class
from ..selector import Selector, method_name
from .console import checked, say


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("hf-dataselect methods", description=__doc__)
    parser.add_argument("name", nargs="?", help="a method, or package.module:Class")
    name = parser.parse_args(argv).name
    say(method_table() if name is None else method_card(checked(selector_class, name)))


def method_table() -> str:
    """Markdown table of all methods; a test compares the copy of docs/methods.md with it."""
    lines = [
        "| method | keeps | paper | features | quality label from | LLMs trained | model-free | dataset-free "
        "| feasibility rank (simplicity, flexibility) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    # Here, since ranks need the cards of all methods, and a single card should show at once.
    from ..evaluation.comparison.feasibility import Facts, rank_by_feasibility

    cards = {name: selector_class(name).card for name in method_names()}
    ranks = rank_by_feasibility({name: Facts.of(card) for name, card in cards.items() if card.paper})
    for name, card in cards.items():
        paper = f"[{card.paper}](https://arxiv.org/abs/{card.paper})" if card.paper else ""
        yes = {True: "yes", False: "no"}
        rank = ranks.get(name)
        rank = f"{rank.feasibility} ({rank.simplicity}, {rank.flexibility})" if rank else ""
        lines.append(
            f"| `{name}` | {card.title} | {paper} | {card.features} | {card.label_source} | {card.trained_llms} "
            f"| {yes[card.model_free]} | {yes[card.dataset_free]} | {rank} |"
        )
    return "\n".join(lines)


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
        lines.append(f"needs: {'; '.join(sorted(selector.needs())) or 'none'}")
        lines.append(f"budget: {Budget.parse(selector.default_budget)}, where none is given")
        lines.append(f"diversity: {'all rows are kept' if selector.fixed_budget else own}")
    lines += ["", "Options (`selection_kwargs`):"]
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            made = field.default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING
            lines.append(f"  {field.name} = {field.default_factory() if made else field.default!r}")
    lines += ["", inspect.cleandoc(kind.__doc__ or "")]
    return "\n".join(lines)
