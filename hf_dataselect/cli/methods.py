"""`hf-dataselect methods`: the cards of the methods, one in full, or which of them to take for a question."""

from collections.abc import Sequence
from importlib import import_module

from ..compat.bitsandbytes import bitsandbytes_later
from ..declared import card_of, method_names, policy_names
from ..evaluation.comparison.feasibility import Facts, rank_by_feasibility
from ..options import nearest
from ..plugins import plugin_list
from .console import refuse, say
from .parsers import methods_parser


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    options = methods_parser().parse_args(argv)
    if options.question is not None:
        _say_which(options.question, options.name)
    elif options.name is None:
        say(f"{method_table()}{plugin_list()}\n\nWhile the model trains (`selection_policy`):\n\n{policy_table()}")
    else:
        with bitsandbytes_later():  # imports the method, and what it imports
            import_module(".method_card", __package__).show(options.name)


def _say_which(question: str, name: str | None) -> None:
    """What is known of a question; wrong ones are refused."""
    from ..evaluation.decisions import decision, decisions
    from ..evaluation.report.report import to_markdown

    questions = decisions()["questions"]
    if name is not None:
        refuse(f"`--for {question}` asks which method, and {name!r} is one: give one of both")
    if question not in questions:
        refuse(f"`--for {question}`: there is no such question{nearest(question, questions)}")
    say(to_markdown(decision(question)))


def method_table() -> str:
    """Markdown table of all methods; a test compares the copy of docs/methods.md with it."""
    lines = [
        "| method | keeps | paper | features | quality label from | LLMs trained | model-free | dataset-free "
        "| feasibility rank (simplicity, flexibility) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    cards = {name: card_of(name) for name in method_names()}
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


def policy_table() -> str:
    """Markdown table of all policies; a test compares the copy of docs/while-training.md with it."""
    lines = ["| policy | trains on | paper | follows from |", "|---|---|---|---|"]
    for name, card in ((name, card_of(name, "policies")) for name in policy_names()):
        paper = f"[{card.paper}](https://arxiv.org/abs/{card.paper})" if card.paper else ""
        lines.append(f"| `{name}` | {card.title} | {paper} | {card.label_source} |")
    return "\n".join(lines)
