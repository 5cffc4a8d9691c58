"""Small candidate datasets in every layout, made in code."""

import random

from datasets import Dataset


WORDS = ["red", "green", "blue", "fox", "river", "stone", "cloud", "letter", "seven", "quick", "slow", "bright"]


def alpaca_rows(n: int, seed: int = 0) -> list[dict]:
    """Rows with `instruction`, `input`, `output` and a `rating`, answers of 1 to 12 words."""
    draw = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    return [
        {
            "instruction": f"Write about {words(2, 6)}.",
            "input": words(1, 4) if i % 3 == 0 else "",
            "output": words(1, 12).capitalize() + ".",
            "rating": float(draw.randint(0, 9)),
        }
        for i in range(n)
    ]


def alpaca(n: int = 24, seed: int = 0) -> Dataset:
    return Dataset.from_list(alpaca_rows(n, seed))


def layout(name: str, n: int = 24, seed: int = 0) -> Dataset:
    """The same rows in another layout."""

    def convert(row: dict) -> dict:
        prompt, answer = f"{row['instruction']} {row['input']}".strip(), row["output"]
        chat = [{"role": "user", "content": prompt}], [{"role": "assistant", "content": answer}]
        return {
            "alpaca": row,
            "messages": {"messages": chat[0] + chat[1] + chat[0] + chat[1]},
            "prompt-completion": {"prompt": prompt + "\n", "completion": answer},
            "chat prompt-completion": {"prompt": chat[0], "completion": chat[1]},
            "text": {"text": f"{prompt}\n{answer}"},
            "sharegpt": {"conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]},
            "strings": {"conversations": [prompt, answer, "And now?", answer]},
        }[name]

    return Dataset.from_list([convert(row) for row in alpaca_rows(n, seed)])


LAYOUTS = ["alpaca", "messages", "prompt-completion", "chat prompt-completion", "text", "sharegpt", "strings"]
