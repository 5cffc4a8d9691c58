"""The cards of the methods as text: `hf-dataselect methods` and the table in the README."""

import dataclasses
import inspect

from ..registry import method_names, selector_class
from ..selector import Selector, method_name


def method_table() -> str:
    """Markdown table of all methods; the README holds a copy, kept in step by a test."""
    lines = [
        "| method | keeps | paper | features | quality label from | LLMs trained | model-free | dataset-free "
        "| feasibility rank (simplicity, flexibility) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    # Among each other: a rank takes the cards of all, and a single card should show at once.
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
        if isinstance(value, (tuple, frozenset)):
            value = "; ".join(sorted(value) if isinstance(value, frozenset) else value) or "none"
        lines.append(f"{field.name.replace('_', ' ')}: {value}")
    own = "the method's own" if kind.spreads_out else "by `selection_diversity`, behind the ranking"
    lines.append(f"diversity: {'all rows are kept' if kind.fixed_budget else own}")
    lines += ["", "Options (`selection_kwargs`):"]
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            made = field.default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING
            lines.append(f"  {field.name} = {field.default_factory() if made else field.default!r}")
    lines += ["", inspect.cleandoc(kind.__doc__ or "")]
    return "\n".join(lines)
