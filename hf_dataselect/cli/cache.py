"""`hf-dataselect cache`: what the cache holds, what of it takes the room, and removing some of it."""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..engines.store.contents import ENGINES, FILES, KEPT, Entry, entries, remove
from ..engines.store.files import cache_folder, in_bytes
from ..options import nearest
from .console import checked, refuse, say
from .parsers import cache_parser


DAY = 86400


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    options = cache_parser().parse_args(argv)
    folder = cache_folder(options.cache_dir)
    if folder is None or not folder.is_dir():
        refuse(f"`--cache_dir {options.cache_dir}`: there is no such folder")
    chosen = options.kind is not None or options.older_than is not None or options.all
    if options.action != "clean" and (chosen or options.dry_run):
        refuse(
            f"`{options.action}` removes nothing: `--kind`, `--older_than`, `--all` and `--dry_run` are for `clean`"
        )
    if options.action == "clean" and not chosen:
        refuse("`clean`: say what may go: `--older_than DAYS`, `--kind KIND ...` or `--all`")
    held = checked(entries, folder)
    {"list": _list, "size": _sum_up, "clean": _clean}[options.action](folder, held, options)


def _list(folder: Path, held: list[Entry], options: argparse.Namespace) -> None:
    lines = ["| entry | of | model | size | last written |", "|---|---|---|---|---|"]
    for entry in held:
        name = entry.path.relative_to(folder)
        lines.append(f"| {name} | {entry.kind} | {entry.model} | {in_bytes(entry.size)} | {_day(entry)} |")
    say("\n".join([*lines, "", _total(held)]))


def _sum_up(folder: Path, held: list[Entry], options: argparse.Namespace) -> None:
    sizes, counts = Counter[str](), Counter(entry.kind for entry in held)
    for entry in held:
        sizes[entry.kind] += entry.size
    lines = ["| of | entries | size |", "|---|---|---|"]
    lines += [f"| {kind} | {counts[kind]:,} | {in_bytes(size)} |" for kind, size in sizes.most_common()]
    say("\n".join([*lines, "", _total(held)]))


def _clean(folder: Path, held: list[Entry], options: argparse.Namespace) -> None:
    kinds = {entry.kind for entry in held}
    known = kinds | ENGINES | FILES.keys()
    for kind in options.kind or ():
        if kind not in known:
            refuse(f"`--kind {kind}`: there is no such kind{nearest(kind, sorted(known))}")
    if missing := [kind for kind in options.kind or () if kind not in kinds]:
        say(f"`--kind`: the cache holds none of {', '.join(missing)}")
    if options.older_than is not None and options.older_than < 0:
        refuse(f"`--older_than {options.older_than:g}` must be 0 days or more")
    wanted = set(options.kind or kinds - KEPT)
    latest = time.time() - DAY * (options.older_than or 0)
    gone = [entry for entry in held if entry.kind in wanted and entry.written <= latest]
    used = [entry for entry in gone if entry.in_use]
    gone = [entry for entry in gone if entry not in used]
    if not options.dry_run:
        for entry in gone:
            checked(remove, entry)
    for entry in used:
        say(f"{entry.path.relative_to(folder)}: a run is writing to it, it stays")
    say(f"{'would remove' if options.dry_run else 'removed'} {_total(gone)}")


def _day(entry: Entry) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(entry.written))


def _total(some: Sequence[Entry]) -> str:
    return f"{len(some):,} {'entry' if len(some) == 1 else 'entries'}, {in_bytes(sum(entry.size for entry in some))}"
