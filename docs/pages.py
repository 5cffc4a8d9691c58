"""
Pages that are written from the code as the site is built (a hook of mkdocs): a page a method, the paper index, and the
README as the first page.
"""

import dataclasses
import inspect
import re
from pathlib import Path

import yaml

from hf_dataselect.budget import Budget
from hf_dataselect.evaluation.comparison.published import Published, published
from hf_dataselect.evaluation.decisions import decision, decisions
from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.registry import method_names, selector_class
from hf_dataselect.selector import Selector, documentation


ROOT = Path(__file__).parents[1]
#: Groups of the navigation; a page that is in none of them is a fault, which a test finds.
NAVIGATION = {
    "Start": ["index.md", "concepts.md", "choosing.md", "questions.md", "methods.md"],
    "Use": ["command-line.md", "options.md", "rows.md", "targets.md", "languages.md", "any-trainer.md", "judges.md"]
    + ["while-training.md"],
    "Evaluate": ["evaluation.md", "benchmarks.md", "intervals.md", "scenarios.md", "audit.md", "auto.md"],
    "Run": ["runs.md", "cache.md", "scaling.md", "capabilities.md", "ranks.md", "faults.md"]
    + ["troubleshooting.md", "limits.md"],
    "Extend": ["add-a-method.md", "building-on.md"],
    "More": ["papers.md", "other-tools.md", "versions.md"],
}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


def generated() -> dict[str, str]:
    """The generated pages, by path in docs/."""
    pages = {f"methods/{name}.md": method_page(name) for name in method_names()}
    return pages | {"papers.md": paper_index(), "questions.md": questions(), "index.md": first_page()}


def questions() -> str:
    """What is published and what was measured, question by question."""
    parts = [f"# Which method for which question\n\n{decisions()['about']}"]
    for name in decisions()["questions"]:
        first, *rest = decision(name)
        first.title = f"{name}: {first.title}"
        parts.append(to_markdown([first, *rest]).replace("\n## ", "\n### "))
    return "\n\n".join(parts) + "\n"


def first_page() -> str:
    """The README, with its links as they are in docs/."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https:|docs/)", "](../", readme).replace("](docs/", "](")


def paragraphs(kind: type[Selector]) -> list[str]:
    """The docstring of a method's module, paragraph by paragraph; names of classes become links."""
    text = inspect.cleandoc(inspect.getmodule(kind).__doc__ or "")
    links = {selector_class(name).__name__: f"[`{name}`]({name}.md)" for name in method_names()}
    text = re.sub(r"\[`(\w+)`\](?!\()", lambda found: links.get(found[1], f"`{found[1]}`"), text)
    text = re.sub(r"\[(`\w+`)\]\(\.\./features/(\w+)\.py\)", r"`hf_dataselect.features.\2`", text)
    return re.split(r"\n\s*\n", text)


def method_page(name: str) -> str:
    """What a method is, what it needs and costs, a recipe, its options, and what is known of it."""
    kind = selector_class(name)
    card, opening, *rest = kind.card, *paragraphs(kind)
    lines = [f"# {name}", "", opening.replace("\n", " "), "", *(part + "\n" for part in rest), "## Recipe", ""]
    lines += ["```yaml", yaml.safe_dump(recipe(name), sort_keys=False, width=100).rstrip(), "```", ""]
    if (ROOT / "recipes" / f"{name}.yaml").is_file():
        lines += [
            f"[recipes/{name}.yaml](../../recipes/{name}.yaml) is a whole run, with a comment on every value.",
            "",
        ]
    lines += ["## Needs and cost", "", *costs(kind), "", "## Options", "", options(kind), "", "## Evidence", ""]
    lines += [*evidence(kind), "", "## Differences from the paper", ""]
    lines += [f"- {deviation}." for deviation in card.deviations] or [
        "None is known." if card.paper else "It has none."
    ]
    return "\n".join(lines) + "\n"


def recipe(name: str) -> dict:
    """The part of a method's recipe that is about selecting."""
    path = ROOT / "recipes" / f"{name}.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {"selection_method": name}
    mine = {key: value for key, value in whole.items() if key.startswith(("selection_", "judge"))}
    return {key: value for key, value in mine.items() if key != "selection_cache_dir"}


def costs(kind: type[Selector]) -> list[str]:
    """What it takes to run a method with its default options."""
    card, selector = kind.card, _default(kind)
    lines = [f"- **Steps**: {'; '.join(card.steps)}."]
    if selector is not None:
        lines.append(f"- **Must be given**: {', '.join(sorted(selector.needs())) or 'the rows only'}.")
        lines.append(f"- **Budget**, where none is given: {Budget.parse(selector.default_budget)}.")
        if packages := sorted(set(selector.extras().values())):
            lines.append(f"- **Installed by**: `pip install hf_dataselect[{','.join(packages)}]`.")
    lines.append(f"- **Models trained to build the selector**: {card.trained_llms}{' (small)' * card.small_llm}.")
    lines.append(f"- **Steps that run a language model**: {card.llm_uses}.")
    lines.append(
        f"- **Unchanged for another model**: {_yes(card.model_free)}; **for other rows**: "
        f"{_yes(card.dataset_free)}; **without ChatGPT**: {_yes(card.chatgpt_free)}."
    )
    lines.append(f"- **Several turns**: {card.multi_turn}.")
    lines += [f"- **Evidence**: {card.evidence}."] if card.evidence else []
    return lines + ([f"- **Images**: {card.images}."] if card.images else [])


def options(kind: type[Selector]) -> str:
    """Options as `selection_kwargs`, with defaults and what the class says of them."""
    described = {}
    for found in re.finditer(
        r"^    (\w[\w, ]*) \(.*?\):\n((?:        .*\n?|\n)+)", documentation(kind), re.M
    ):  # a class before those that it inherits from
        described = dict.fromkeys(found[1].split(", "), " ".join(found[2].split())) | described
    lines = ["| `selection_kwargs` | default | |", "|---|---|---|"]
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        told = "" if default is dataclasses.MISSING else f"`{default!r}`".replace("|", "\\|").replace("\n", " ")
        lines.append(f"| `{field.name}` | {told} | {described.get(field.name, '').replace('|', chr(92) + '|')} |")
    return "\n".join(lines) if len(lines) > 2 else "It has none."


def evidence(kind: type[Selector]) -> list[str]:
    """What the survey publishes of a method; what holds for one's own rows is measured."""
    lines = []
    if row := _published().get(kind.card.paper or ""):
        how = ", estimated from a benchmark ratio" if row.estimated else ""
        lines.append(
            f"- arXiv 2406.14115 lists a PIR (wins rate{how}) of {row.point.pir:.3f} at an SDF of {row.point.sdf:g}, "
            "from the numbers of the method's own paper: other models, rows and judges than yours."
        )
    lines.append(
        "- On your rows: [compare it](../evaluation.md#comparing) with `random` and `full`, or "
        "[audit its scores](../audit.md) first. [How to choose](../choosing.md) says what was measured."
    )
    return lines


def paper_index() -> str:
    """Every paper that is implemented, with the part of a recipe that repeats it."""
    lines = [
        "# Paper index",
        "",
        "Papers that are implemented, with what they claim and the settings that repeat it; "
        "training settings are in the recipes.",
        "",
        "## Methods",
        "",
    ]
    for name in sorted(filter(lambda name: selector_class(name).card.paper, method_names())):
        kind = selector_class(name)
        paper, parts = kind.card.paper, [part.replace("\n", " ") for part in paragraphs(kind)]
        named = re.search(r'arXiv [\d.]+, "([^"]+)"', parts[0])
        claim = next(
            (part for part in parts if part.startswith("The claim: ")), f"The claim: it keeps {kind.card.title}."
        )
        claim = claim.replace("](", "](methods/").removeprefix("The claim: ")
        lines += [f"### {named[1] if named else re.split(r' ?[(:,]', parts[0])[0]}", ""]
        lines += [f"[arXiv {paper}](https://arxiv.org/abs/{paper}), as [`{name}`](methods/{name}.md).", ""]
        lines += [claim[0].upper() + claim[1:], "", "```yaml"]
        lines += [yaml.safe_dump(recipe(name), sort_keys=False, width=100).rstrip(), "```", ""]
    lines += ["## Measures, benchmarks and parts", "", "| paper | where |", "|---|---|"]
    for paper, modules in sorted(_cited().items()):
        named = ", ".join(f"`{module}`" for module in modules)
        lines.append(f"| [arXiv {paper}](https://arxiv.org/abs/{paper}) | {named} |")
    return "\n".join(lines) + "\n"


def _cited() -> dict[str, list[str]]:
    """Papers named in docstrings and comments outside the methods that are theirs, with the modules."""
    methods, found = {selector_class(name).card.paper for name in method_names()}, {}
    for path in sorted((ROOT / "hf_dataselect").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for paper in sorted(set(re.findall(r"arXiv:? ?(\d{4}\.\d{5})", path.read_text(encoding="utf-8"))) - methods):
            found.setdefault(paper, []).append(module)
    return found


def _default(kind: type[Selector]) -> Selector | None:
    try:
        return kind()
    except (TypeError, ValueError, ImportError):  # options without defaults
        return None


def _published() -> dict[str, Published]:
    return {row.paper: row for version in ("v2", "v1") for row in published(version)}


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def within(markdown: str, page: str) -> str:
    """A page for the site: links to files outside docs/ are their names, and the table of methods links to pages."""

    def link(found: re.Match) -> str:
        target = found[2].partition("#")[0]
        inside = target.startswith(("http:", "https:")) or not target
        at = ((ROOT / "docs" / page).parent / target).resolve()
        return found[0] if inside or at.is_relative_to(ROOT / "docs") else found[1]

    markdown = _LINK.sub(link, markdown)
    if page == "methods.md":
        markdown = re.sub(r"^\| `(\w+)` \|", r"| [`\1`](methods/\1.md) |", markdown, flags=re.MULTILINE)
    return markdown


# Hooks of mkdocs -----------------------------------------------------------------------------------------------------


def on_config(config):
    pages = dict(NAVIGATION)
    pages["Start"] = [*pages["Start"], {"Pages of the methods": [f"methods/{name}.md" for name in method_names()]}]
    there = {str(path.relative_to(config.docs_dir)) for path in Path(config.docs_dir).glob("*.md")} | {"index.md"}
    keep = lambda page: not isinstance(page, str) or page in there | {"papers.md"}  # noqa: E731
    config.nav = [{group: list(filter(keep, names))} for group, names in pages.items()]
    return config


def on_files(files, config):
    from mkdocs.structure.files import File

    for path, content in generated().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown, page, **_):
    return within(markdown, page.file.src_uri)
