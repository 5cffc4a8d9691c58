"""Held-out loss of answers, also by a vision-language model for rows with images."""

import logging
from typing import Any

import numpy as np
import torch

from ..compat.trl import vision_collator
from ..context import Context
from ..data.images import image_mode, picture, stored_images
from ..data.records import Records
from ..engines.runtime.model_state import scoring, scoring_dtype
from .loss import AnswerLoss, answer_loss


logger = logging.getLogger(__name__)


def held_out_loss(records: Records, ctx: Context, label: str | None = None) -> AnswerLoss:
    """
    Conditional loss of the answers of held-out rows, end of turn included, see [`answer_loss`].

    For rows with images it is that of the last answer, with the tokens and pixels that TRL trains on. A row that the
    processor or the model refuses is NaN, and entered in `ctx.account`.

    Raises:
        `ValueError`: rows with images and a context without a processor.
    """
    if records.images is None:
        return answer_loss(records, ctx, ctx.text_format(end_of_turn=True), label=label)
    if ctx.processor is None:
        raise ValueError(f"`{records.name}` has images, and the model has no processor that takes them.")
    collate = vision_collator(ctx.processor, ctx.max_length)
    refused = "no image that can be decoded, or the processor refuses the row"

    def measure(examples: list[dict]) -> np.ndarray:
        inputs = collate([dict(example) for example in examples])
        weight = next(ctx.model.parameters())  # has the scoring dtype
        labels = inputs.pop("labels").to(weight.device)[:, 1:]
        inputs = {
            name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        rows, places = (labels != -100).nonzero(as_tuple=True)
        # Label tokens only: float32 logits for every image token would fill the memory.
        logits, labels = ctx.model(**inputs).logits[rows, places].float(), labels[rows, places]
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        columns = torch.stack(
            [loss.double(), torch.ones_like(loss).double(), (logits.argmax(-1) == labels).double()], 1
        )
        return columns.new_zeros(len(examples), 3).index_add_(0, rows, columns).cpu().numpy()

    def compute(batch: np.ndarray) -> np.ndarray:
        sums = np.full((len(batch), 3), np.inf)
        examples = [_example(records, int(row)) for row in batch]
        usable = [i for i, example in enumerate(examples) if example is not None]
        try:
            sums[usable] = measure([examples[i] for i in usable]) if usable else 0
        except ValueError:  # a row's images do not match its text, or exceed the window
            for i in usable:
                try:
                    sums[i] = measure([examples[i]])[0]
                except ValueError as error:
                    logger.warning("Row %d of `%s`: %s", batch[i], records.name, str(error).splitlines()[0])
        return sums

    with torch.no_grad(), scoring(ctx.model, scoring_dtype(ctx.model, ctx.runtime.dtype)):
        lengths = np.full(len(records), ctx.max_length or 1024)
        sums = ctx.runtime.map(compute, lengths, 3, label=label or "Scoring answers")
    ctx.runtime.book(forward_rows=len(records))
    ctx.account.note("unscorable", refused, np.flatnonzero(np.isinf(sums[:, 0])))
    ctx.account.note("unscorable", "did not fit in memory", np.flatnonzero(np.isnan(sums[:, 0])))
    ctx.account.note("unscorable", "no answer within the window", np.flatnonzero(sums[:, 1] == 0))
    sums[~np.isfinite(sums).all(1) | (sums[:, 1] == 0)] = np.nan
    return AnswerLoss(sums[:, 0] / sums[:, 1], sums[:, 1], sums[:, 2])


def _example(records: Records, row: int) -> dict[str, Any] | None:
    """A row up to its last answer, in TRL's format; `None` if it can't be read."""
    record = records[row]
    mode = image_mode(records.dataset)
    pictures = [picture(image, mode) for image in stored_images(records.dataset, [row])[0]]
    if record.problem is not None or not record.answer_turns or None in pictures:
        return None
    turn = record.answer_turns[-1]
    parts = [list(record.messages[:turn]), [record.messages[turn]]]
    if not record.chat:
        parts = [record.prompt, record.answer]
    return {"prompt": parts[0], "completion": parts[1], "images": pictures}
