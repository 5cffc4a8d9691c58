"""The options of an audit: [`AuditArguments`]."""

from dataclasses import dataclass, field
from typing import Annotated

from ..evaluation.audit.findings import CONTROLS
from ..evaluation.audit.prediction import MIN_SUBSETS
from ..options import Interval, PositiveInt, check_declared, documented
from .entries import entries_of


@documented
@dataclass
class AuditArguments:
    """What is audited."""

    methods: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Selectors to audit: names, also separated by commas, or mappings of `method`, `selection_kwargs` "
            "and `name` (JSON on the command line). Default: all but `nuggets` that need no judge and have what they "
            f"need. The controls {', '.join(CONTROLS)} are always added."
        },
    )
    subsets: Annotated[int, Interval(MIN_SUBSETS)] = field(
        default=64,
        metadata={"help": "Random subsets to train on. More cost proportionally more time and narrow the intervals."},
    )
    subset_rows: Annotated[int, Interval(2)] | None = field(
        default=None,
        metadata={
            "help": "Rows of a subset, and of each selector's top rows. Default: 0.025 of the pool, at least 8. More "
            "cost more time per subset."
        },
    )
    top_seeds: PositiveInt = field(
        default=1,
        metadata={
            "help": "Trainings on each selector's top rows, with seeds from `seed` on. More narrow the intervals of "
            "gains where seeds matter."
        },
    )

    def __post_init__(self):
        check_declared(self)
        self.entries = entries_of(self.methods)
