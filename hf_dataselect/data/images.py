"""The images of rows: where they are, as bytes for hashing, and as pictures."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Image, List
from tqdm.auto import tqdm


if TYPE_CHECKING:
    from PIL.Image import Image as Picture


def image_column(columns: Collection[str]) -> str | None:
    """The column of images as [`~trl.SFTTrainer`] knows it: `image` (one a row) or `images` (a list)."""
    return next((name for name in ("image", "images") if name in columns), None)


def other_images(dataset: Dataset) -> list[str]:
    """Columns of images that no one looks at, as their name is another one."""
    kinds = {name: getattr(feature, "feature", feature) for name, feature in dataset.features.items()}
    known = image_column(dataset.column_names)
    return [name for name, kind in kinds.items() if isinstance(kind, Image) and name != known]


def stored_images(dataset: Dataset, rows: Sequence[int]) -> list[list[Any]]:
    """The images of rows as they are stored (`bytes` and `path`, or a path), not decoded; none where there is none."""
    name = image_column(dataset.column_names)
    column = dataset.select_columns([name]).with_format("arrow")[[int(row) for row in rows]][name].to_pylist()
    lists = (found if isinstance(found, list) else [found] for found in column)
    return [[image for image in images if image is not None] for images in lists]


def has_image(dataset: Dataset) -> np.ndarray:
    """Whether each row has an image, bool `(n,)`: one that is not null."""
    return np.concatenate([*_with_image(dataset, 1000)])


def no_image(dataset: Dataset) -> bool:
    """Whether no row has an image; looks no further than the first that has."""
    return not any(found.any() for found in _with_image(dataset, 32))


def _with_image(dataset: Dataset, block: int) -> Iterator[np.ndarray]:
    name = image_column(dataset.column_names)
    for part in dataset.select_columns([name]).with_format("arrow").iter(block):
        column = part[name].combine_chunks()
        if name == "image" or column.null_count == len(column):
            yield pc.is_valid(column).to_numpy(zero_copy_only=False)
        else:
            rows = pc.list_parent_indices(column).filter(pc.is_valid(pc.list_flatten(column)))
            yield np.bincount(rows.to_numpy(), minlength=len(column)) > 0


def lacks_images(dataset: Dataset) -> bool:
    """Whether the column of images has nulls, or lists of them: TRL takes neither."""
    column = dataset.data.column(image_column(dataset.column_names))
    return bool(column.null_count or (pa.types.is_list(column.type) and pc.list_flatten(column).null_count))


def as_image_lists(dataset: Dataset) -> Dataset:
    """The column of images as `images`: a list a row without nulls, empty where there is none."""
    name = image_column(dataset.column_names)
    feature, features = dataset.features[name], dataset.features.copy()
    features["images"] = List(features.pop(name)) if name == "image" else feature
    stored = _undecoded(feature.feature) if isinstance(feature, List) else _undecoded(feature)
    dataset = dataset.cast_column(name, List(stored) if isinstance(feature, List) else stored)

    def listed(images: list) -> dict[str, list]:
        lists = (found if isinstance(found, list) else [found] for found in images)
        return {"images": [[image for image in found if image is not None] for found in lists]}

    options = {"input_columns": [name], "remove_columns": [name], "features": features}
    return dataset.map(listed, batched=True, desc="Listing images", **options)


def _undecoded(feature: Any) -> Any:
    return Image(mode=feature.mode, decode=False) if isinstance(feature, Image) else feature


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
    except ImportError:  # no Pillow, and no fault of the image
        raise
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
