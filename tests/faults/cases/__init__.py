"""The faults, as data: one list for each kind."""

from tests.faults.case import Case
from tests.faults.cases import caches, disks, judges, kills, ranks, rows, run_folders


CASES: list[Case] = [
    *kills.CASES,
    *disks.CASES,
    *caches.CASES,
    *run_folders.CASES,
    *judges.CASES,
    *ranks.CASES,
    *rows.CASES,
]
