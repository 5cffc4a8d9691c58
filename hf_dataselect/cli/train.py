"""`hf-dataselect train`: select, train, evaluate, save the model."""

from collections.abc import Sequence

from ..errors import printable
from ..runs.hub import pushing
from ..training.dry_run import forecast_run
from ..training.recipe import build_trainer, check_hub, parse_recipe
from .console import alone_in, checked, log_to_console, say, without_dry_run


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    log_to_console()
    argv, dry_run = without_dry_run(argv)
    recipe = checked(parse_recipe, argv)
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
