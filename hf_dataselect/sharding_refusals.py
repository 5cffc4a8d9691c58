"""What can't be done with a model that is sharded across ranks, refused by name before any weights load."""

from collections.abc import Collection

from .compat.sharding import left_in_environment
from .engines.runtime.fsdp2 import USE_FSDP2
from .engines.runtime.sharding import WAYS


#: Ways of sharding in which each rank holds all weights until training begins.
WHOLE = (None, "ZeRO-0", "ZeRO-1", "ZeRO-2")
#: What else to do.
WAY_OUT = "run `hf-dataselect select` in a launch without sharding, and train on the rows that it saves"
#: What else it may be.
LEFT = (
    " If nothing is to be sharded: an earlier accelerator or trainer with FSDP has set `ACCELERATE_USE_FSDP` for the "
    'rest of this process; `del os.environ["ACCELERATE_USE_FSDP"]`.'
)
#: Of the needs of a method, those that no sharded model meets, and why.
REFUSED = {
    "all weights": "tunes weights of the model itself, whose sums are rounded in another way there",
    "training": "trains the model again and again",
}


def check_sharded(sharding: str | None, method: str, needs: Collection[str]) -> None:
    """
    Refuse a method that runs the model in a way that it can't be run in where it is sharded.

    Args:
        sharding (`str`, *optional*):
            How, as [`~compat.sharding.sharding_by_args`] says it; `None` if each rank holds all weights.
        method (`str`):
            The method.
        needs (`Collection`):
            What it needs, see [`~selector.Need`].

    Raises:
        `ValueError`: what can't be done, and what to do instead.
    """
    if sharding in WHOLE:
        return
    said = f"`selection_method={method!r}` runs the model, which {sharding} shards"
    if sharding not in WAYS:
        left = LEFT if left_in_environment() else ""
        raise ValueError(f"{said} in a way that it can't be run in. {USE_FSDP2} Or {WAY_OUT}.{left}")
    for need, why in REFUSED.items():
        if need in needs:
            options = ", `warmup: lora` without `layers`" if need == "all weights" else ""
            raise ValueError(f"{said}; it {why}. Use another method{options}, or {WAY_OUT}.")


def check_trained(sharding: str | None, said: str, images: str | None = None) -> None:
    """
    Refuse what takes part in training, where that has not been run as the model is sharded.

    Args:
        sharding (`str`, *optional*):
            As in [`check_sharded`].
        said (`str`):
            The option.
        images (`str`, *optional*):
            Column of the images of the rows that the model is run on.

    Raises:
        `ValueError`: what has not been run, and what to do instead.
    """
    if sharding not in (*WHOLE, "FSDP2"):
        raise ValueError(f"{said} has not been run under {sharding}: use FSDP2, or train without sharding.")
    if images is not None and sharding not in WHOLE:
        raise ValueError(f"{said} has not been run on rows with images (`{images}`) under {sharding}: remove them.")
