"""Embeddings of images and texts in one space, by a CLIP or whatever else transformers has of that kind."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoProcessor

from ..context import Context
from ..data import images as images_module
from ..data.images import has_image, image_key, picture, stored_images
from ..data.records import Records
from ..engines.forward.sentence_encoder import embedding_store, text_keys
from ..engines.runtime.batching import map_batches
from ..engines.runtime.model_state import cast, evaluating, scoring_dtype
from ..engines.store.identity import code_version, digest, model_identity
from ..engines.store.vector_store import stored_vectors
from .text_statistics import split_sentences


#: Of an answer, so many sentences count: a CLIP reads one at a time.
SENTENCES = 10


class Embeddings(NamedTuple):
    """Of rows, each of length 1; NaN where there is none."""

    #: float32 `(n, 2 x width)`, image and text side by side; the text's alone, `(n, width)`, without images.
    joint: np.ndarray
    #: Whether there are images.
    images: bool

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
        `ValueError`: no such model, no two towers, or no processor of images and texts.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"`selection_kwargs`: clip={name!r} can't be found, or has no processor: {error}") from error
    known = MODEL_MAPPING.get(type(config), None)  # not a model of the user's own code
    if known and not all(hasattr(known, f"get_{kind}_features") for kind in ("image", "text")):
        raise ValueError(f"`selection_kwargs`: clip={name!r} is no model of images and texts (as CLIP or SigLIP is).")
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise ValueError(f"`selection_kwargs`: clip={name!r} has no image processor: its preprocessor_config.json.")


class _Clip:
    """A CLIP, its processor, and how it embeds; `width` is that of its embeddings."""

    def __init__(self, name: str, ctx: Context):
        self.ctx, self.processor = ctx, AutoProcessor.from_pretrained(name)
        try:
            self.model = AutoModel.from_pretrained(name, dtype="auto")
            self.window = self.model.config.text_config.max_position_embeddings
            self._of_texts = self.model.get_text_features
            self._of_images = self.model.get_image_features
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(f"`selection_kwargs`: clip={name!r} can't be loaded: {error}") from error
        if ctx.accelerator is not None:
            self.model.to(ctx.accelerator.device)
        self.dtype = scoring_dtype(self.model, ctx.dtype)
        vision = self.model.config.vision_config
        self.patches = (getattr(vision, "image_size", 224) // getattr(vision, "patch_size", 16)) ** 2 + 1
        with torch.no_grad(), evaluating(self.model):
            self.width = self._embedded(self._of_texts, self._encoded(["a"])).shape[1]

    def stored(self, kind: str, keys: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Vectors `(n, width)` by content; `compute` gives those that are not kept yet, in eval mode."""
        ctx, described = self.ctx, digest([str(self.processor), kind])
        code = code_version(sys.modules[__name__], images_module)
        options = {"kind": described, "vision": code, "dtype": str(self.dtype)}
        store = embedding_store(ctx.cache_dir, self.model, self.width, **options)
        main = ctx.accelerator is None or ctx.accelerator.is_main_process
        with (
            tqdm(total=len(keys), desc=f"Embedding {kind}", unit="row", disable=not main) as bar,
            torch.no_grad(),
            evaluating(self.model),
            cast(self.model, self.dtype),
        ):
            found = stored_vectors(store, keys, compute, ctx.accelerator, on_rows=bar.update)
        store.close()
        ctx.account.count(embedded_rows=len(keys) - found.cached, cached_rows=found.cached)
        ctx.account.add_cached_seconds(found.cached_seconds)
        return found.vectors[:]

    def mapped(self, compute: Callable[[np.ndarray], np.ndarray], n: int, tokens: int) -> np.ndarray:
        """`compute` of batches of `n` items of so many tokens, on all ranks."""
        options = {"batch_tokens": self.ctx.batch_tokens, "accelerator": self.ctx.accelerator, "dtype": np.float32}
        return map_batches(compute, np.full(n, tokens), self.width, **options)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts, cut at the window."""
        return _unit(self._embedded(self._of_texts, self._encoded(texts)))

    def cuts(self, texts: Sequence[str]) -> bool:
        """Whether one of the texts is longer than the window."""
        long = [text for text in texts if len(text) > self.window // 4]
        return bool(long) and max(map(len, self.processor.tokenizer(long, verbose=False)["input_ids"])) > self.window

    def pictures(self, pictures: Sequence[Any]) -> np.ndarray:
        """Unit vectors of pictures."""
        inputs = self.processor.image_processor(images=list(pictures), return_tensors="pt")
        return _unit(self._embedded(self._of_images, inputs))

    def _encoded(self, texts: Sequence[str]) -> dict[str, Any]:
        # SigLIP knows texts that fill the window only; CLIP does not mind.
        options = {"padding": "max_length", "truncation": True, "max_length": self.window}
        return self.processor.tokenizer(list(texts), return_tensors="pt", **options)

    def _embedded(self, features: Callable, inputs: dict[str, Any]) -> np.ndarray:
        weight = next(self.model.parameters())
        inputs = {
            name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if name != "token_type_ids"
        }
        found = features(**inputs)
        found = found if isinstance(found, torch.Tensor) else found.pooler_output
        return found.float().cpu().numpy()


def embed(records: Records, ctx: Context, clip: str) -> Embeddings:
    """
    Embeddings of images and answers; kept in the context's cache, and whole in memory.

    Rows without an answer or an image are NaN and entered in `ctx.account`; NaN are also those with an image that
    can't be decoded, which are unreadable for all methods (see [`Records`]).

    Args:
        clip (`str`):
            See [`ImageTextSources`].
    """
    check_clip(clip)
    model = _Clip(clip, ctx)
    ctx.account.figures["identity of clip"] = model_identity(model.model)
    text = _text_vectors(records, ctx, model)
    if records.images is None:
        return Embeddings(text, images=False)
    present = has_image(records.dataset)
    ctx.account.note("unscorable", _NO_IMAGE, np.flatnonzero(~present))
    present = np.setdiff1d(np.flatnonzero(present), records.undecodable)
    keys = [
        image_key(images)
        for start in range(0, len(present), 1000)
        for images in stored_images(records.dataset, present[start : start + 1000])
    ]

    def compute(places: np.ndarray) -> np.ndarray:
        def of_batch(batch: np.ndarray) -> np.ndarray:
            rows = stored_images(records.dataset, present[places[batch]])
            with ThreadPoolExecutor() as pool:
                decoded = list(pool.map(picture, [image for row in rows for image in row]))
            return _means(model.pictures(decoded), [len(row) for row in rows])

        return model.mapped(of_batch, len(places), model.patches)

    image = np.full((len(records), model.width), np.nan, np.float32)
    if len(present):
        image[present] = model.stored("images", np.frombuffer(b"".join(keys), "V16"), compute)
    lost = present[~np.isfinite(image[present]).all(1)]
    ctx.account.note("unscorable", "an image did not fit in memory, or has no embedding", lost)
    image[lost] = np.nan
    return Embeddings(np.hstack([_unit(image), text]), images=True)


_NO_IMAGE = "no image, where other rows have one: select from rows with and without images apart"


def _text_vectors(records: Records, ctx: Context, model: _Clip) -> np.ndarray:
    asked = [record for record in records if record.problem is None and record.answer.strip()]
    rows = np.array([record.index for record in asked], np.int64)
    parts = [(split_sentences(record.answer) or [record.answer])[:SENTENCES] for record in asked]

    def compute(places: np.ndarray) -> np.ndarray:
        flat = [sentence for place in places for sentence in parts[place]]
        vectors = model.mapped(lambda batch: model.texts([flat[i] for i in batch]), len(flat), model.window)
        return _means(vectors, [len(parts[place]) for place in places])

    found = np.full((len(records), model.width), np.nan, np.float32)
    if len(rows):
        found[rows] = model.stored("answers", text_keys(["\n".join(part) for part in parts]), compute)
    ctx.account.note("unscorable", "no answer", np.setdiff1d(np.arange(len(records)), rows))
    cut = [
        len(split_sentences(record.answer)) > SENTENCES or model.cuts(part)
        for record, part in zip(asked, parts, strict=True)
    ]
    ctx.account.note("truncated", f"of the answer, {SENTENCES} sentences within the window of `clip` count", rows[cut])
    lost = rows[~np.isfinite(found[rows]).all(1)]
    ctx.account.note("unscorable", "the answer did not fit in memory, or has no embedding", lost)
    found[lost] = np.nan
    return _unit(found)


def _means(vectors: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Mean of the first `counts[0]` vectors, of the next `counts[1]`, and so on."""
    starts = np.cumsum([0, *counts[:-1]])
    return np.add.reduceat(vectors, starts) / np.asarray(counts, np.float32)[:, None]


def _unit(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
