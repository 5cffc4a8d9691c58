"""
Probe every method in every mode and write `docs/capabilities.md`; `python -m tests.capabilities MODE ...` probes these
modes anew (see `modes.py`). DeepSpeed is probed where it is installed. What was probed is kept in `--folder`, and a
run with the same one goes on.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from hf_dataselect.registry import method_names
from tests.capabilities.modes import MODES
from tests.capabilities.page import DATA, PAGE, page, with_rows
from tests.capabilities.probes import WORKS, probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modes", nargs="*", choices=[*MODES, []], help="by default all")
    parser.add_argument("--methods", nargs="*", help="only these are probed, and nothing is written")
    parser.add_argument("--folder", type=Path, help="of what was probed; by default a new one that is removed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        lines, began = {}, time.perf_counter()
        for key in ["one", *(key for key in given.modes or MODES if key != "one")]:

            def tell(line: dict, key: str = key) -> None:
                print(f"{key:8} {line['method']:20} {line['seconds']:6.1f} s  {line['said'][:120]}", flush=True)

            lines[key] = probe(key, given.methods or method_names(), folder, tell)
    print(f"{time.perf_counter() - began:,.0f} s")
    if given.methods:
        return
    found = json.loads(DATA.read_text("utf-8")) if DATA.exists() else {}
    for key, of_mode in lines.items():
        alone = lines["one"] if MODES[key].same else {name: of_mode[name] for name in of_mode}
        found[key] = with_rows(of_mode, alone)
    found = {key: dict(sorted(found[key].items())) for key in MODES if key in found}
    DATA.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if missing := MODES.keys() - found.keys():
        print(f"Not written, as these were never probed: {', '.join(missing)}")
        return
    PAGE.write_text(page(found), encoding="utf-8")
    print(
        f"Written: {PAGE}; {sum(text.startswith(WORKS) for cells in found.values() for text in cells.values())} work"
    )


if __name__ == "__main__":
    main()
