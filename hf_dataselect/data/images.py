"""
Images of rows: their column, their bytes for hashing, and their decoding.

They are decoded as in training: a column of [`~datasets.Image`] by its dataset, a column of strings (a path, an URL, a
`data:` URL or base64 text) by `transformers.image_utils.load_image`, as the processor does.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Image, LargeList, List

from ..compat.datasets import progress_is_shown, stored_column
from ..compat.transformers import image_of_text
from ..engines.runtime.progress import progress_bar


if TYPE_CHECKING:
    from PIL.Image import Image as Picture


def image_column(columns: Collection[str]) -> str | None:
    """The image column that [`~trl.SFTTrainer`] reads: `image` (one per row) or `images` (a list)."""
    return next((name for name in ("image", "images") if name in columns), None)


def other_images(dataset: Dataset) -> list[str]:
    """Image columns that are ignored, since they are not called `image` or `images`."""
    kinds = {name: getattr(feature, "feature", feature) for name, feature in dataset.features.items()}
    known = image_column(dataset.column_names)
    return [name for name, kind in kinds.items() if isinstance(kind, Image) and name != known]


def image_mode(dataset: Dataset) -> str | None:
    """The Pillow mode that the image column declares."""
    feature = dataset.features[image_column(dataset.column_names)]
    return getattr(getattr(feature, "feature", feature), "mode", None)


def stored_images(dataset: Dataset, rows: Sequence[int] | np.ndarray) -> list[list[Any]]:
    """Undecoded images of rows, as stored (`bytes` and `path`, or a text); an empty list for a row without images."""
    name = image_column(dataset.column_names)
    column = dataset.select_columns([name]).with_format("arrow")[[int(row) for row in rows]][name].to_pylist()
    lists = (value if isinstance(value, list) else [value] for value in column)
    return [[image for image in images if image is not None] for images in lists]


def has_image(dataset: Dataset) -> np.ndarray:
    """Whether each row has a non-null image, bool `(n,)`."""
    return np.concatenate([*_with_image(dataset, 1000)])


def no_image(dataset: Dataset) -> bool:
    """Whether no row has an image; stops at the first that does."""
    return not any(mask.any() for mask in _with_image(dataset, 32))


def _with_image(dataset: Dataset, block: int) -> Iterator[np.ndarray]:
    name = image_column(dataset.column_names)
    for part in dataset.select_columns([name]).with_format("arrow").iter(block):
        column = part[name].combine_chunks()
        if not _is_list(column.type) or column.null_count == len(column):
            yield pc.is_valid(column).to_numpy(zero_copy_only=False)
        else:
            rows = pc.list_parent_indices(column).filter(pc.is_valid(pc.list_flatten(column)))
            yield np.bincount(rows.to_numpy(), minlength=len(column)) > 0


def lacks_images(dataset: Dataset) -> bool:
    """Whether the image column has nulls, lists with nulls, or images that are not decoded: TRL accepts none."""
    name = image_column(dataset.column_names)
    column, feature = stored_column(dataset, name), dataset.features[name]
    feature = getattr(feature, "feature", feature)
    undecoded = isinstance(feature, dict) or isinstance(feature, Image) and not feature.decode
    return bool(undecoded or column.null_count or (_is_list(column.type) and pc.list_flatten(column).null_count))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def as_image_lists(dataset: Dataset) -> Dataset:
    """Convert the image column to `images`: one list per row without nulls, empty for a row without images."""
    name = image_column(dataset.column_names)
    feature, features = dataset.features[name], dataset.features.copy()
    lists = isinstance(feature, (List, LargeList))
    kind = feature.feature if lists else feature
    features.pop(name)
    features["images"] = List(Image(mode=getattr(kind, "mode", None)) if isinstance(kind, (Image, dict)) else kind)
    stored = _undecoded(kind)
    dataset = dataset.cast_column(name, List(stored) if lists else stored)

    def listed(images: list) -> dict[str, list]:
        lists = (value if isinstance(value, list) else [value] for value in images)
        return {"images": [[image for image in row if image is not None] for row in lists]}

    options = {"input_columns": [name], "remove_columns": [name], "features": features}
    return dataset.map(listed, batched=True, desc="Converting images to lists", **options)


def _undecoded(feature: Any) -> Any:
    return Image(mode=feature.mode, decode=False) if isinstance(feature, Image) else feature


def image_bytes(image: Any) -> bytes | None:
    """The bytes of a stored image, read from its file if necessary; `None` if it can't be read."""
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
    A stored image as it is decoded in training, with its EXIF orientation applied, in a Pillow `mode` (`None`: its
    own; a text always gives RGB). `None` if it can't be decoded.
    """
    try:
        if isinstance(image, dict):
            return Image(mode=mode).decode_example({"path": None, "bytes": None} | image)
        decoded = image_of_text(image)
        return decoded if mode is None else decoded.convert(mode)
    except ImportError:  # Pillow is missing; the image may be fine
        raise
    # Broken files raise anything, depending on their format: `struct.error`, `SyntaxError`, ...
    except Exception:
        return None


def undecodable(dataset: Dataset, block: int = 100) -> np.ndarray:
    """
    Rows with an image that can't be decoded, int64; empty for a dataset without images. What is on the network counts
    as decodable: training downloads it anew for each batch, and a check does not.
    """
    if image_column(dataset.column_names) is None:
        return np.zeros(0, np.int64)

    def broken(images: list[Any]) -> bool:
        return any(picture(image) is None for image in images if not _on_network(image))

    failed = np.zeros(len(dataset), bool)
    quiet = len(dataset) <= block or not progress_is_shown()
    with ThreadPoolExecutor() as pool, progress_bar(len(dataset), "Checking images", disable=quiet) as bar:
        for start in range(0, len(dataset), block):
            images = stored_images(dataset, range(start, min(start + block, len(dataset))))
            failed[start : start + block] = list(pool.map(broken, images))
            bar.update(len(images))
    return np.flatnonzero(failed)


def _on_network(image: Any) -> bool:
    if not isinstance(image, dict):
        return str(image).startswith(("http://", "https://"))
    path = image.get("path") if image.get("bytes") is None else None
    return "://" in (source := str(path).split("::")[-1]) and not source.startswith("file://")
