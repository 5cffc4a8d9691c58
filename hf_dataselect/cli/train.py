"""`hf-dataselect train`: select, train, evaluate, save the model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import printable
from ..options import documented
from ..runs.hub import pushing
from ..training.dry_run import forecast_run
from ..training.recipe import build_trainer, check_hub, parse_recipe
from .console import alone_in, checked, log_to_console, refuse, say, without_dry_run


#: Exit code where a guarded domain is HARMED.
HARM = 3


@documented
@dataclass
class TrainArguments:
    """How the command ends."""

    fail_on_harm: bool = field(
        default=False,
        metadata={
            "help": "Exit with code 3, once everything is saved and pushed, if a domain of `guard_dataset` is HARMED."
        },
    )


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    log_to_console()
    argv, dry_run = without_dry_run(argv)
    recipe = checked(parse_recipe, argv, more=TrainArguments)
    if recipe.more.fail_on_harm and not recipe.args.guard_dataset:
        refuse("`fail_on_harm` needs `guard_dataset`: held-out rows by domain, {math: FILE}.")
    if dry_run:
        say("\n".join(checked(forecast_run, recipe, train=True)))
        return
    checked(check_hub, recipe.args, train=True)
    with alone_in(recipe.args.output_dir):
        trainer = checked(build_trainer, recipe)
        resume = trainer.args.resume_from_checkpoint
        resume = {"true": True, "false": None, "none": None}.get(str(resume).lower(), resume)
        trainer.train(resume_from_checkpoint=resume)
        trainer.save_model(trainer.args.output_dir)
        trainer.create_model_card()
        if trainer.args.push_to_hub:
            with pushing("push_to_hub", trainer.hub_model_id, trainer.args.output_dir):
                trainer.push_to_hub(dataset_name=recipe.data.dataset_name)
        if trainer.args.hub_subset_id:
            trainer.push_selected_dataset(trainer.args.hub_subset_id, trainer.args.hub_private_repo is not False)
        trainer.accelerator.print(trainer.selection.summary())
        trainer.accelerator.print(printable(f"Run folder: {trainer.args.output_dir}"))
    if recipe.more.fail_on_harm and (harmed := trainer.guard.harmed):
        # A launcher stops all ranks as soon as one fails.
        trainer.args.runtime(trainer.accelerator).on_main(lambda: None)
        trainer.accelerator.print(printable(f"`fail_on_harm`: HARMED by this training: {', '.join(harmed)}."))
        raise SystemExit(HARM)
