"""The images of rows: where they are, as bytes for hashing, and as pictures."""

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Image, List
from tqdm.auto import tqdm


if TYPE_CHECKING:
    from PIL.Image import Image as Picture


def image_column(columns: Collection[str]) -> str | None:
    """The column of images as [`~trl.SFTTrainer`] knows it: `image` (one a row) or `images` (a list)."""
    return next((name for name in ("image", "images") if name in columns), None)


def stored_images(dataset: Dataset, rows: Sequence[int]) -> list[list[Any]]:
    """The images of rows as they are stored (`bytes` and `path`, or a path), not decoded; none where there is none."""
    name = image_column(dataset.column_names)
    column = dataset.select_columns([name]).with_format("arrow")[[int(row) for row in rows]][name].to_pylist()
    lists = (found if isinstance(found, list) else [found] for found in column)
    return [[image for image in images if image is not None] for images in lists]


def has_image(dataset: Dataset) -> np.ndarray:
    """Whether each row has an image, bool `(n,)`."""
    name = image_column(dataset.column_names)
    table = dataset.select_columns([name]).with_format("arrow")
    test = (
        pc.is_valid
        if name == "image"
        else lambda column: pc.fill_null(pc.greater(pc.list_value_length(column), 0), False)
    )
    return np.concatenate([test(part[name]).to_numpy() for part in table.iter(1000)])


def as_image_lists(dataset: Dataset) -> Dataset:
    """The column of images as `images`: a list a row, empty where there is none."""
    name = image_column(dataset.column_names)
    feature, features = dataset.features[name], dataset.features.copy()
    features["images"] = List(features.pop(name)) if name == "image" else feature
    if isinstance(feature, Image):
        dataset = dataset.cast_column(name, Image(mode=feature.mode, decode=False))

    def listed(images: list) -> dict[str, list]:
        return {"images": [image if isinstance(image, list) else [] if image is None else [image] for image in images]}

    options = {"input_columns": [name], "remove_columns": [name], "features": features}
    return dataset.map(listed, batched=True, desc="Listing images", **options)


def image_bytes(image: Any) -> bytes | None:
    """The bytes of a stored image, read from its file if need be; `None` if that can't be."""
    if isinstance(image, dict):
        if image.get("bytes") is not None:
            return image["bytes"]
        image = image.get("path")
    try:
        return Path(image).read_bytes()
    except (OSError, TypeError, ValueError):
        return None


def image_key(images: list[Any]) -> bytes:
    """Content key of a row's stored images, 16 bytes."""
    hasher = hashlib.blake2b(digest_size=16)
    for image in images:
        data = image_bytes(image) or str(image).encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.digest()


def picture(image: Any, mode: str | None = "RGB") -> "Picture | None":
    """
    A stored image as its dataset decodes it, turned the way that its camera was held, in a mode of Pillow's; `None`
    for its own. `None` if it can't be decoded.
    """
    stored = image if isinstance(image, dict) else {"path": image}
    try:
        return Image(mode=mode).decode_example({"path": None, "bytes": None} | stored)
    # Broken files raise what their format's reader likes, `struct.error` and `SyntaxError` among it.
    except Exception:
        return None


def undecodable(dataset: Dataset, block: int = 100) -> np.ndarray:
    """Rows with an image that can't be decoded, int64; none of rows without images."""
    if image_column(dataset.column_names) is None:
        return np.zeros(0, np.int64)

    def broken(images: list[Any]) -> bool:
        return any(picture(image) is None for image in images)

    found = np.zeros(len(dataset), bool)
    shown = {"desc": "Looking for broken images", "unit": "row", "disable": len(dataset) <= block}
    with ThreadPoolExecutor() as pool, tqdm(total=len(dataset), **shown) as bar:
        for start in range(0, len(dataset), block):
            images = stored_images(dataset, range(start, min(start + block, len(dataset))))
            found[start : start + block] = list(pool.map(broken, images))
            bar.update(len(images))
    return np.flatnonzero(found)
