"""Files of the cache that are damaged between two runs: named, and computed anew."""

from tests.faults.case import Case, Damage, Run


#: Method, files, how they are damaged, in words, by, whether it must be said, whether of the short form.
_DAMAGES = [
    ("ifd", "cache/*/*.rows", "flip", "a bit flipped", r"\.rows", True),
    ("ifd", "cache/*/*.rows", "in front", "5 bytes put in front", r"\.rows", False),
    ("ifd", "cache/*/*.rows", "zeros", "all bytes zero", r"\.rows", False),
    ("ifd", "cache/*/*.rows", "cut", "cut in half", "", False),
    ("ifd", "cache/*/*.rows", "empty", "emptied", "", False),
    ("ifd", "cache/*/*.rows", "delete", "deleted", "", False),
    ("ifd", "cache/*/namespace.json", "cut", "cut in half", r"namespace\.json", False),
    ("ifd", "cache/*/namespace.json", "empty", "emptied", r"namespace\.json", True),
    ("ifd", "cache/warmup/*.safetensors", "flip many", "bits of 100 weights flipped", r"\.safetensors", True),
    ("ifd", "cache/warmup/*.safetensors", "cut", "cut in half", r"\.safetensors", False),
    ("ifd", "cache/warmup/*.safetensors", "empty", "emptied", r"\.safetensors", False),
    ("ifd", "cache/warmup/*.safetensors", "foreign", "of another program", r"\.safetensors", False),
    ("less", "cache/warmup/*.safetensors", "flip many", "bits of 100 weights flipped", r"\.safetensors", False),
    ("less", "cache/*/*.rows", "flip", "a bit flipped", r"\.rows", False),
    ("less", "cache/*/*.rows", "cut", "cut in half", "", False),
    ("less", "cache/projection/*.json", "flip", "a bit flipped", "projection", False),
    ("less", "cache/projection/*.json", "cut", "cut in half", "projection", False),
    ("alpagasus", "cache/judge/*.jsonl", "flip", "a bit flipped", r"responses\.jsonl", False),
    ("alpagasus", "cache/judge/*.jsonl", '"text": "[01]', "ratings raised to 5", r"responses\.jsonl", True),
    ("alpagasus", "cache/judge/*.jsonl", '"key": "[0-9a-f]', "keys that are none", r"responses\.jsonl", False),
    (
        "alpagasus",
        "cache/judge/*.jsonl",
        '"seconds": [0-9.e-]+',
        "seconds that are a text",
        r"responses\.jsonl",
        False,
    ),
    ("alpagasus", "cache/judge/*.jsonl", "As I see", "invalid UTF-8", r"responses\.jsonl", False),
    ("alpagasus", "cache/judge/*.jsonl", "cut", "cut in half", "", False),
    ("alpagasus", "cache/judge/*.jsonl", "nested", "a line of 100,000 brackets", r"responses\.jsonl", False),
    ("nuggets", "cache/*/*.rows", "flip many", "200 bits flipped", r"\.rows", False),
]
_BY = {'"text": "[01]': '"text": "5', '"key": "[0-9a-f]': '"key": "zz', '"seconds": [0-9.e-]+': '"seconds": "x"'}
_BY |= {"As I see": "\udcff\udcfe"}
_IN_WORDS = {
    "cache/*/*.rows": "results of rows",
    "cache/*/namespace.json": "what results depend on",
    "cache/warmup/*.safetensors": "the warm-up's weights",
    "cache/projection/*.json": "the choice of a projection",
    "cache/judge/*.jsonl": "replies of the judge",
}


def _damaged(method: str, files: str, how: str, words: str, says: str, short: bool) -> Case:
    run = Run("select", method)
    # A line of brackets is beside the replies; a choice is made again from what is given.
    anew = how != "nested" and "projection" not in files and "namespace" not in files
    return Case(
        f"{_IN_WORDS[files]}: {words}",
        f"`select`, `{method}`: `{files}`",
        "damage",
        (run, Damage(files, how, _BY.get(how, "")), run),
        "recomputed" if anew else "recovered",
        says=says,
        short=short,
    )


CASES = [_damaged(*damage) for damage in _DAMAGES] + [
    Case(
        "the warm-up's weights: those of another method",
        "`select`, `ifd`: `cache/warmup/*.safetensors`",
        "damage",
        (
            Run("select", "ifd", options={"seed": 7}),
            Damage("cache/warmup/*.safetensors", "copy", "other"),
            Damage("cache", "delete"),
            Run(),
            Damage("other", "copy", "cache/warmup/*.safetensors"),
            Run(),
        ),
        "recomputed",
        says=r"\.safetensors",
    ),
    Case(
        "the cache is a file",
        "`select`, `ifd`: `cache`",
        "damage",
        (Run(), Damage("cache", "delete"), Damage("log*.txt", "copy", "cache"), Run()),
        "refused",
        says="`selection_cache_dir=.*can't be written",
    ),
]
