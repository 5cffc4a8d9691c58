"""Run folders as other versions, a damaged disk, or a careless copy leave them."""

import json
from pathlib import Path

from hf_dataselect.engines.store.checked import read_json, write_json


def as_earlier_version(folder: Path, **changes: dict) -> None:
    """A run folder without ids and checksums, as 0.1.0 wrote it; `changes` to the content of files, by stem."""
    for path in [*folder.glob("*.json"), *folder.glob("checkpoint-*/train*.json")]:
        content = json.loads(path.read_text())
        for name in ("run", "checksum", "files", "scores.parquet"):
            content.pop(name, None)
        if path.name == "trainer_state.json":
            content["stateful_callbacks"].get("hf_dataselect", {}).pop("run", None)
        if path.name == "train_seconds.json":
            content = content["seconds"]
        path.write_text(json.dumps(content | changes[path.stem] if path.stem in changes else content))
    for path in folder.glob("answers/*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("\n".join(json.dumps({k: v for k, v in line.items() if k != "run"}) for line in lines))
    recipe = folder / "recipe.yaml"
    if recipe.is_file():
        lines = recipe.read_text().splitlines(keepends=True)
        recipe.write_text("".join(line for line in lines if not line.startswith("# hf_dataselect")))


def edit(path: Path, **entries) -> None:
    """Let a JSON file of a run hold other entries, as if it had been written with them."""
    write_json(path, read_json(path) | entries)


def flipped(whole: bytes, place: int, bit: int = 4) -> bytes:
    """The bytes with one bit changed."""
    return whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
