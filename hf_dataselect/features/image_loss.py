"""How well a vision-language model foresees the answers of rows with images."""

import logging
from typing import Any

import numpy as np
import torch

from ..context import Context
from ..data.images import picture, stored_images
from ..data.records import Records
from ..engines.runtime.batching import map_batches
from ..engines.runtime.model_state import cast, evaluating, scoring_dtype
from .loss import AnswerLoss, answer_loss


logger = logging.getLogger(__name__)


def held_out_loss(records: Records, ctx: Context, label: str | None = None) -> AnswerLoss:
    """
    How hard the answers of held-out rows are for the model, end of turn included, see [`answer_loss`].

    Of rows with images, it is the last answer, with the tokens and pixels that TRL would train it on. A row that the
    processor or the model refuses is NaN, and entered in `ctx.account`.

    Raises:
        `ValueError`: rows with images and a context without a processor.
    """
    if records.images is None:
        return answer_loss(records, ctx, ctx.text_format(end_of_turn=True), label=label)
    if ctx.processor is None:
        raise ValueError(f"`{records.name}` has images, and the model has no processor that takes them.")
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    collate = DataCollatorForVisionLanguageModeling(ctx.processor, ctx.max_length, completion_only_loss=True)
    refused = "no image that can be decoded, or the processor refuses the row"

    def measure(examples: list[dict]) -> np.ndarray:
        inputs = collate([dict(example) for example in examples])
        weight = next(ctx.model.parameters())  # in the dtype that is scored in
        labels = inputs.pop("labels").to(weight.device)[:, 1:]
        inputs = {
            name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        rows, places = (labels != -100).nonzero(as_tuple=True)
        # Of the answers only: a whole vocabulary in single precision for each piece of an image fills the memory.
        logits, labels = ctx.model(**inputs).logits[rows, places].float(), labels[rows, places]
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        columns = torch.stack(
            [loss.double(), torch.ones_like(loss).double(), (logits.argmax(-1) == labels).double()], 1
        )
        return columns.new_zeros(len(examples), 3).index_add_(0, rows, columns).cpu().numpy()

    def compute(batch: np.ndarray) -> np.ndarray:
        found = np.full((len(batch), 3), np.inf)
        examples = [_example(records, int(row)) for row in batch]
        usable = [i for i, example in enumerate(examples) if example is not None]
        try:
            found[usable] = measure([examples[i] for i in usable]) if usable else 0
        except ValueError:  # one row's images do not go with its text, or not with the window
            for i in usable:
                try:
                    found[i] = measure([examples[i]])[0]
                except ValueError as error:
                    logger.warning("Row %d of `%s`: %s", batch[i], records.name, str(error).splitlines()[0])
        return found

    with torch.no_grad(), evaluating(ctx.model), cast(ctx.model, scoring_dtype(ctx.model, ctx.dtype)):
        found = map_batches(
            compute,
            np.full(len(records), ctx.max_length or 1024),
            3,
            batch_tokens=ctx.batch_tokens,
            accelerator=ctx.accelerator,
            progress=label or "Scoring answers",
        )
    ctx.account.count(forward_rows=len(records))
    ctx.account.note("unscorable", refused, np.flatnonzero(np.isinf(found[:, 0])))
    ctx.account.note("unscorable", "did not fit in memory", np.flatnonzero(np.isnan(found[:, 0])))
    ctx.account.note("unscorable", "no answer within the window", np.flatnonzero(found[:, 1] == 0))
    found[~np.isfinite(found).all(1) | (found[:, 1] == 0)] = np.nan
    return AnswerLoss(found[:, 0] / found[:, 1], found[:, 1], found[:, 2])


def _example(records: Records, row: int) -> dict[str, Any] | None:
    """A row up to its last answer as TRL takes it; `None` if it can't be read."""
    record = records[row]
    pictures = [picture(image, mode=None) for image in stored_images(records.dataset, [row])[0]]
    if record.problem is not None or not record.answer_turns or None in pictures:
        return None
    turn = record.answer_turns[-1]
    parts = [list(record.messages[:turn]), [record.messages[turn]]]
    if not record.chat:
        parts = [record.prompt, record.answer]
    return {"prompt": parts[0], "completion": parts[1], "images": pictures}
