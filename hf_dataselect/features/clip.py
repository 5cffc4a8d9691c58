"""Embeddings of images and texts in one space, by CLIP, SigLIP or a similar model of transformers."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

from ..compat.transformers import base_class
from ..context import Context
from ..data.images import has_image, image_key, image_mode, picture, stored_images
from ..data.records import Records
from ..engines.forward.cached_vectors import CachedVectors
from ..engines.forward.sentence_encoder import text_keys
from ..engines.runtime.loading import load_pretrained
from ..engines.runtime.model_state import cast, evaluating, scoring_dtype
from ..engines.store.identity import digest, identity_of
from ..engines.subset.target_similarity import unit
from .text_statistics import split_sentences


#: Sentences of an answer that are embedded, one at a time.
SENTENCES = 10


class Embeddings(NamedTuple):
    """Unit vectors of rows; NaN for a row that has none."""

    #: float32 `(n, 2 x width)`, image and text side by side; `(n, width)`, text only, without images.
    joint: np.ndarray
    #: Whether the dataset has images.
    images: bool
    #: Hash of the CLIP.
    identity: str

    @property
    def image(self) -> np.ndarray | None:
        """`(n, width)`, the mean over a row's images; `None` for a dataset without images."""
        return self.joint[:, : self.joint.shape[1] // 2] if self.images else None

    @property
    def text(self) -> np.ndarray:
        """`(n, width)`, the mean over an answer's first ten sentences."""
        return self.joint[:, self.joint.shape[1] // 2 :] if self.images else self.joint


def check_clip(name: str) -> None:
    """
    Refuse what can't embed images and texts, before its weights load.

    Raises:
        `ValueError`: an unknown model, one that is not an image-text model, or one without a processor for both.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"`selection_kwargs`: clip={name!r} can't be found, or has no processor: {error}") from error
    known = base_class(config)  # unknown for remote code
    if known and not all(hasattr(known, f"get_{kind}_features") for kind in ("image", "text")):
        raise ValueError(f"`selection_kwargs`: clip={name!r} is not an image-text model such as CLIP or SigLIP.")
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise ValueError(f"`selection_kwargs`: clip={name!r} has no image processor: its preprocessor_config.json.")


class _Clip:
    """A CLIP, its processor, and how it embeds; `width` is that of its embeddings."""

    def __init__(self, name: str, ctx: Context):
        self.ctx, self.processor = ctx, AutoProcessor.from_pretrained(name)
        try:
            self.model, _ = load_pretrained(AutoModel, name, ctx.runtime)
            self.window = self.model.config.text_config.max_position_embeddings
            self._of_texts = self.model.get_text_features
            self._of_images = self.model.get_image_features
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(f"`selection_kwargs`: clip={name!r} can't be loaded: {error}") from error
        self.dtype = scoring_dtype(self.model, ctx.runtime.dtype)
        vision = self.model.config.vision_config
        self.patches = (getattr(vision, "image_size", 224) // getattr(vision, "patch_size", 16)) ** 2 + 1
        with torch.no_grad(), evaluating(self.model):
            self.width = self._embedded(self._of_texts, self._encoded(["a"])).shape[1]

    def cached(self, kind: str, keys: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Vectors `(n, width)` by content key; `compute` gives those that are not cached, in eval mode."""
        ctx, described = self.ctx, digest([str(self.processor), kind])
        # Raise `vision` when the vector of an unchanged image or text and model changes by more than rounding.
        options = {"kind": described, "vision": 1, "dtype": str(self.dtype)}
        with (
            CachedVectors(ctx.runtime, self.model, self.width, f"Embedding {kind}", len(keys), **options) as cached,
            torch.no_grad(),
            evaluating(self.model),
            cast(self.model, self.dtype),
        ):
            return cached(keys, compute).vectors[:]

    def mapped(self, compute: Callable[[np.ndarray], np.ndarray], n: int, tokens: int) -> np.ndarray:
        """`compute` of batches of `n` items of `tokens` tokens each, sharded across ranks."""
        return self.ctx.runtime.map(compute, np.full(n, tokens), self.width, dtype=np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts, truncated to the window."""
        return unit(self._embedded(self._of_texts, self._encoded(texts)))

    def cuts(self, texts: Sequence[str]) -> bool:
        """Whether one of the texts is longer than the window."""
        long = [text for text in texts if len(text) > self.window // 4]
        return bool(long) and max(map(len, self.processor.tokenizer(long, verbose=False)["input_ids"])) > self.window

    def pictures(self, pictures: Sequence[Any]) -> np.ndarray:
        """Unit vectors of pictures."""
        inputs = self.processor.image_processor(images=list(pictures), return_tensors="pt")
        return unit(self._embedded(self._of_images, inputs))

    def _encoded(self, texts: Sequence[str]) -> dict[str, Any]:
        # SigLIP is trained on texts padded to the window; CLIP accepts both.
        options = {"padding": "max_length", "truncation": True, "max_length": self.window}
        return self.processor.tokenizer(list(texts), return_tensors="pt", **options)

    def _embedded(self, features: Callable, inputs: dict[str, Any]) -> np.ndarray:
        weight = next(self.model.parameters())
        inputs = {
            name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if name != "token_type_ids"
        }
        output = features(**inputs)
        output = output if isinstance(output, torch.Tensor) else output.pooler_output
        return output.float().cpu().numpy()


def embed(records: Records, ctx: Context, clip: str) -> Embeddings:
    """
    Embeddings of images and answers, cached and held in memory.

    Rows without an answer or an image are NaN and entered in `ctx.account`. Rows with an image that can't be decoded,
    which no method can read (see [`Records`]), are NaN too.

    Args:
        clip (`str`):
            See [`ImageTextSources`].
    """
    check_clip(clip)
    model = _Clip(clip, ctx)
    identity = identity_of(model.model)
    text = _text_vectors(records, ctx, model)
    if records.images is None:
        return Embeddings(text, False, identity)
    present = has_image(records.dataset)
    ctx.account.note("unscorable", _NO_IMAGE, np.flatnonzero(~present))
    present = np.setdiff1d(np.flatnonzero(present), records.undecodable)
    mode = image_mode(records.dataset)

    def of_training(image: Any) -> Any:
        decoded = picture(image, mode)
        return decoded and decoded.convert("RGB")

    keys = [
        image_key(images)
        for start in range(0, len(present), 1000)
        for images in stored_images(records.dataset, present[start : start + 1000])
    ]

    def compute(places: np.ndarray) -> np.ndarray:
        def of_batch(batch: np.ndarray) -> np.ndarray:
            rows = stored_images(records.dataset, present[places[batch]])
            with ThreadPoolExecutor() as pool:
                decoded = list(pool.map(of_training, [image for row in rows for image in row]))
            vectors = np.full((len(decoded), model.width), np.nan, np.float32)
            # An image on the network may be gone.
            if here := [i for i, image in enumerate(decoded) if image is not None]:
                vectors[here] = model.pictures([decoded[i] for i in here])
            return _means(vectors, [len(row) for row in rows])

        return model.mapped(of_batch, len(places), model.patches)

    image = np.full((len(records), model.width), np.nan, np.float32)
    if len(present):
        image[present] = model.cached("images", np.frombuffer(b"".join(keys), "V16"), compute)
    lost = present[~np.isfinite(image[present]).all(1)]
    ctx.account.note("unscorable", "an image did not fit in memory, or has no embedding", lost)
    image[lost] = np.nan
    return Embeddings(np.hstack([unit(image), text]), True, identity)


_NO_IMAGE = "no image, where other rows have one: select from rows with and without images apart"


def _text_vectors(records: Records, ctx: Context, model: _Clip) -> np.ndarray:
    asked = [record for record in records if record.problem is None and record.answer.strip()]
    rows = np.array([record.index for record in asked], np.int64)
    parts = [(split_sentences(record.answer) or [record.answer])[:SENTENCES] for record in asked]

    def compute(places: np.ndarray) -> np.ndarray:
        flat = [sentence for place in places for sentence in parts[place]]
        vectors = model.mapped(lambda batch: model.texts([flat[i] for i in batch]), len(flat), model.window)
        return _means(vectors, [len(parts[place]) for place in places])

    text = np.full((len(records), model.width), np.nan, np.float32)
    if len(rows):
        text[rows] = model.cached("answers", text_keys(["\n".join(part) for part in parts]), compute)
    ctx.account.note("unscorable", "no answer", np.setdiff1d(np.arange(len(records)), rows))
    cut = [
        len(split_sentences(record.answer)) > SENTENCES or model.cuts(part)
        for record, part in zip(asked, parts, strict=True)
    ]
    ctx.account.note("truncated", f"of the answer, {SENTENCES} sentences within the window of `clip` count", rows[cut])
    lost = rows[~np.isfinite(text[rows]).all(1)]
    ctx.account.note("unscorable", "the answer did not fit in memory, or has no embedding", lost)
    text[lost] = np.nan
    return unit(text)


def _means(vectors: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Mean of the first `counts[0]` vectors, of the next `counts[1]`, and so on."""
    starts = np.cumsum([0, *counts[:-1]])
    return np.add.reduceat(vectors, starts) / np.asarray(counts, np.float32)[:, None]
