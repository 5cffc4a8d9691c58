"""Writes the quickstart data, `candidates.jsonl`, `target.jsonl` and `heldout.jsonl`, the same to the byte each time.

All rows were written for this project (licence: Apache-2.0), in the columns `instruction`, `input`, `output`, `topic`
and `fault`. The candidates are a pool as users have it, of 15 topics and with faults: of 288, 216 are clean (`fault`
is null) and 72 (25 %) have a planted fault, 18 of each kind. About 2 % of the rows are not in English.

| fault | what was done to the row |
|---|---|
| `wrong_answer` | the answer is plausible, but false |
| `cut_answer` | the answer ends in mid-sentence |
| `other_question` | the answer is a good one, but to another question |
| `near_duplicate` | another row, lightly reworded; the original is in the file too, unchanged and with `fault` null |

`target.jsonl` has 16 examples of the one task that matters, word problems, and `heldout.jsonl` has 60 others: each of
them was written by hand, none is a candidate, and none is of a template that makes candidates. Nothing that selects
rows should look at `fault` or `topic`: they are there to see afterwards what was kept.

    python recipes/quickstart/make_data.py
    python recipes/quickstart/make_data.py --seed 1 --out other    # another draw: of pool, faults and target
"""

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from content import HAND_WRITTEN, Row, parse
from templates import generate
from word_problems import WORD_PROBLEMS


SEED = 14115
CANDIDATES = 288
TARGET = 16
FAULTS = ("wrong_answer", "cut_answer", "other_question", "near_duplicate")
PER_FAULT = 18
REWORDED_TOPICS = ("explanation", "how_to", "comparison", "list", "knowledge", "language")

# The first rule that fits rewords an instruction; all rules that fit reword an answer.
INSTRUCTION_RULES = [
    (r"^(Explain|Describe|Compare) ", lambda m: f"Please {m[1].lower()} "),
    (r"^Suggest ", "Propose "),
    (r"^Name ", "List "),
    (r"^List ", "Name "),
    (r"^Give ", "Provide "),
    (r"^Tell me how ", "Please show me how "),
    (r"^Why (do|does|is|can) ", r"For what reason \1 "),
    (r"^What (are|is) the difference between (.*)\?$", r"How would you describe the difference between \2?"),
    (r"^What (is|are) ((?:an?|the) [\w ]+)\?$", r"Tell me what \2 \1."),
    (r"^What (distinguishes|causes) ", r"Can you tell me what \1 "),
    (r"^How (do|can|should) (I|you) ", "What is a good way to "),
    (r"^How (do|does) ", r"In what way \1 "),
]
OUTPUT_RULES = [
    (r"\bBecause\b", "Since"),
    (r"\bbecause\b", "since"),
    (r"\babout (?=\d|half|twice|five|six|two)", "roughly "),
    (r"\btherefore\b", "thus"),
    (r"\busually\b", "normally"),
    (r"\boften\b", "frequently"),
    (r"\bfor example\b", "for instance"),
    (r", while\b", ", whereas"),
    (r"\blarge\b", "big"),
    (r"\bquickly\b", "rapidly"),
    (r"\bmostly\b", "mainly"),
    (r"\btiny\b", "very small"),
    (r"\bgives off\b", "releases"),
    (r"\bgive off\b", "release"),
    (r"\bsuch as\b", "like"),
    (r"\bso that\b", "so"),
    (r"\bneeds\b", "requires"),
    (r"\bgently\b", "carefully"),
    (r"\bChoose\b", "Pick"),
    (r"\beach other\b", "one another"),
    (r"\bat once\b", "immediately"),
    (r"\bCheck that\b", "Make sure that"),
    (r"\bsuddenly\b", "abruptly"),
    (r"\bstay(s?)\b", r"remain\1"),
    (r"\bbegin\b", "start"),
    (r"\bturns into\b", "becomes"),
    (r"\btake off\b", "remove"),
    (r"\bThen\b", "After that,"),
    (r"\ba few\b", "several"),
    (r"\bIn the evening\b", "Later in the day"),
    (r"\bAs\b", "While"),
    (r"\bThis\b", "That"),
]


def row_of(row: Row, fault: str | None = None) -> dict[str, str | None]:
    """The row as it is written to the files."""
    return {
        "instruction": row.instruction,
        "input": row.input,
        "output": row.output,
        "topic": row.topic,
        "fault": fault,
    }


def is_prose(row: Row) -> bool:
    """Whether the answer is flowing text that is long enough to be cut."""
    return row.topic != "code" and "\n" not in row.output and len(row.output.split()) >= 16


def cut(row: Row, rng: random.Random) -> Row:
    """Cuts the answer between 40 and 75 per cent of its words, never at the end of a sentence or of a line."""
    ends = [m.end() for m in re.finditer(r"\S+", row.output)]
    low, high = int(len(ends) * 0.4), int(len(ends) * 0.75)
    inside = [e for e in ends[low:high] if row.output[e - 1].isalpha() and row.output[e] == " "]
    return replace(row, output=row.output[: rng.choice(inside)])


def reword(row: Row) -> Row | None:
    """Rewords instruction and answer lightly, or gives `None` where no rule fits the answer."""
    for pattern, new in INSTRUCTION_RULES:
        instruction, fits = re.subn(pattern, new, row.instruction)
        if fits:
            break
    output, changes = row.output, 0
    for pattern, new in OUTPUT_RULES:
        output, fits = re.subn(pattern, new, output)
        changes += fits
    if instruction == row.instruction or not changes:
        return None
    return replace(row, instruction=instruction, output=output)


def spread(rows: list[Row], count: int, rng: random.Random, fits: Callable[[Row], object]) -> list[Row]:
    """Takes `count` fitting rows out of `rows`, topic after topic in turn, so that no topic has most of them."""
    by_topic = defaultdict(list)
    for row in rows:
        if fits(row):
            by_topic[row.topic].append(row)
    for topic in by_topic.values():
        rng.shuffle(topic)
    if sum(map(len, by_topic.values())) < count:
        raise ValueError(f"{count} rows are wanted, but only {sum(map(len, by_topic.values()))} fit")
    taken = []
    while len(taken) < count:
        for topic in rng.sample(sorted(by_topic), len(by_topic)):
            if by_topic[topic] and len(taken) < count:
                taken.append(by_topic[topic].pop())
    chosen = set(taken)
    rows[:] = [row for row in rows if row not in chosen]
    return taken


def stratified(rows: list[Row], count: int, rng: random.Random) -> list[Row]:
    """`count` of the rows, each topic in proportion to its size."""
    order = sorted(rng.sample(rows, len(rows)), key=lambda row: row.topic)
    return [order[int((i + 0.5) * len(order) / count)] for i in range(count)]


def swap(rows: list[Row]) -> list[Row]:
    """Gives every row the answer of another row of a different topic; each answer is used once."""
    rows = sorted(rows, key=lambda row: row.topic)
    third = len(rows) // 3
    answers = rows[third:] + rows[:third]
    if any(row.topic == answer.topic for row, answer in zip(rows, answers, strict=True)):
        raise ValueError("one topic has more than a third of the rows, so some answers would stay in their topic")
    return [replace(row, output=answer.output) for row, answer in zip(rows, answers, strict=True)]


def make(seed: int = SEED) -> dict[str, list[dict]]:
    """
    Makes all sets of rows.

    Args:
        seed (`int`, *optional*, defaults to `14115`):
            Seed of every random choice.

    Returns:
        `dict[str, list[dict]]`: the rows of `candidates`, `target` and `heldout`.
    """
    rng = random.Random(seed)
    rows = stratified(parse(HAND_WRITTEN) + generate(rng), CANDIDATES - PER_FAULT, rng)

    wrong = spread(rows, PER_FAULT, rng, lambda row: row.wrong)
    short = spread(rows, PER_FAULT, rng, is_prose)
    other = spread(rows, PER_FAULT, rng, lambda row: len(row.output.split()) >= 3)
    originals = spread(rows, PER_FAULT, rng, lambda row: row.topic in REWORDED_TOPICS and reword(row))

    candidates = [row_of(row) for row in rows + originals]
    candidates += [row_of(replace(row, output=row.wrong), "wrong_answer") for row in wrong]
    candidates += [row_of(cut(row, rng), "cut_answer") for row in short]
    candidates += [row_of(row, "other_question") for row in swap(other)]
    candidates += [row_of(reword(row), "near_duplicate") for row in originals]
    task = [row_of(row) for row in parse(WORD_PROBLEMS)]
    rng.shuffle(candidates)
    rng.shuffle(task)
    return {"candidates": candidates, "target": task[:TARGET], "heldout": task[TARGET:]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes candidates.jsonl, target.jsonl and heldout.jsonl.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--seed", type=int, default=SEED, help="of every random choice")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, rows in make(options.seed).items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (options.out / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        faults = {fault: sum(row["fault"] == fault for row in rows) for fault in FAULTS}
        print(f"{name}.jsonl: {len(rows)} rows, {faults}")


if __name__ == "__main__":
    main()
