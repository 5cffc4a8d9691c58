"""`hf-dataselect audit`: which selectors' scores predict what training on rows does, with this model and pool?"""

import dataclasses
from collections.abc import Sequence

from accelerate import PartialState

from ..engines.store.checked import write_json
from ..engines.store.files import write_atomic
from ..evaluation.audit.report import sections
from ..evaluation.report.report import to_markdown
from ..runs.files import plain
from ..training.audit import carry_out_audit, finish
from ..training.audit_arguments import AuditArguments
from ..training.audit_plan import plan_audit
from ..training.dry_run import forecast_audit
from ..training.recipe import parse_recipe
from .console import alone_in, checked, log_to_console, say, without_dry_run


def run(argv: Sequence[str]) -> None:
    """Run the command; finished trainings and scores are kept."""
    log_to_console()
    argv, dry_run = without_dry_run(argv)
    recipe = checked(parse_recipe, argv, "audit", AuditArguments)
    if dry_run:
        say("\n".join(checked(forecast_audit, checked(plan_audit, recipe))))
        return
    with alone_in(recipe.args.output_dir):
        planned = checked(plan_audit, recipe)
        audit, about = checked(carry_out_audit, planned)
        if PartialState().is_main_process:
            shown = to_markdown(sections(audit, about))
            written = planned.folder / "audit.json", planned.folder / "audit.md"
            write_json(written[0], plain(about | dataclasses.asdict(audit)))
            write_atomic(written[1], shown + "\n")
            finish(planned)
            say(f"{shown}\n\nWritten: {', '.join(map(str, written))}")
