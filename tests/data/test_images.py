"""Rows with images: read without decoding them, handed on untouched, and known by their bytes."""

import base64
import io
import socket

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, Features, Image, LargeList, List, Value, load_dataset
from PIL import Image as Pillow
from transformers.image_utils import load_image

from hf_dataselect.context import Context
from hf_dataselect.data.encoding import encode
from hf_dataselect.data.images import has_image, image_key, image_mode, picture, stored_images
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.runs.publish import selected_dataset
from tests.tiny import context_of, tiny_tokenizer
from tests.tiny_vision import captions, image_rows, tiny_vlm


@pytest.fixture
def no_decoding(monkeypatch):
    """Any decoding fails."""

    def fails(*given, **more):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(Image, "decode_example", fails)


@pytest.mark.parametrize("layout", ["prompt-completion", "messages"])
def test_rows_are_read_without_their_images(layout, no_decoding, monkeypatch):
    records = Records(image_rows(6, layout=layout))
    assert [record.answer for record in records] == [row["completion"][0]["content"] for row in captions(6)]
    assert records[2].prompt == "What is this?"
    assert records.content_hash() == Records(image_rows(6, layout=layout)).content_hash()
    assert records.for_training([1, 3]).features == records.dataset.features
    if layout == "prompt-completion":
        assert len(encode(records, TextFormat(tiny_tokenizer())).tokens) == 6
    monkeypatch.undo()
    selection = select(records, load_selector("random"), 3, Context(tiny_tokenizer()))
    assert selected_dataset(records.dataset, selection).column_names[:-2] == records.dataset.column_names


def test_other_pixels_are_another_dataset():
    rows = image_rows(4).to_list()
    rows[2]["image"] = Pillow.new("RGB", (20, 20), "orange")
    changed = Dataset.from_list(rows, features=image_rows(1).features)
    assert Records(changed).content_hash() != Records(image_rows(4)).content_hash()


def test_images_come_from_bytes_lists_paths_and_files(tmp_path):
    path = tmp_path / "one.png"
    captions(1)[0]["image"].save(path)
    data = path.read_bytes()
    rows = [{"text": "a", "image": {"bytes": data, "path": None}}, {"text": "b", "image": str(path)}]
    for feature in (Image(), Image(decode=False)):
        stored = stored_images(Dataset.from_list(rows, features=Features(text=Value("string"), image=feature)), [0, 1])
        assert [len(images) for images in stored] == [1, 1] and image_key(stored[0]) == image_key(stored[1])
        assert np.array_equal(picture(stored[0][0]), captions(1)[0]["image"])
    named = Dataset.from_dict({"text": ["b"], "image": [str(path)]})  # a column of plain paths
    assert picture(stored_images(named, [0])[0][0]).size == (20, 20)
    gone = Dataset.from_dict({"text": ["b"], "image": [str(tmp_path / "gone.png")]})
    assert picture(stored_images(gone, [0])[0][0]) is None
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "one.png", "text": "a"}')
    folder = load_dataset("imagefolder", data_dir=str(tmp_path), split="train")
    assert np.array_equal(picture(stored_images(folder, [0])[0][0]), captions(1)[0]["image"])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "CMYK"])
def test_pictures_are_rgb(mode):
    buffer = io.BytesIO()
    Pillow.new(mode, (3, 2)).save(buffer, "TIFF")
    assert picture({"bytes": buffer.getvalue(), "path": None}).mode == "RGB"


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(20)])
def test_what_can_not_be_decoded_is_none(data):
    assert picture({"bytes": data, "path": None}) is None


def test_a_picture_cut_short_is_none():
    buffer = io.BytesIO()
    Pillow.effect_noise((64, 64), 50).save(buffer, "PNG")
    assert picture({"bytes": buffer.getvalue()}) is not None
    assert picture({"bytes": buffer.getvalue()[:-500]}) is None


def test_images_are_decoded_once_to_find_the_broken_ones(monkeypatch):
    rows = image_rows(150, layout="messages").cast_column("images", List(Image(decode=False))).to_list()
    whole = rows[0]["images"][0]
    for row, data in ((3, whole["bytes"][:60]), (149, b"no image")):
        rows[row]["images"] = [whole, {"bytes": data, "path": None}]
    records, decoded = Records(Dataset.from_list(rows, features=image_rows(1, layout="messages").features)), []
    monkeypatch.setattr(Image, "decode_example", _counting(Image.decode_example, decoded))
    for _ in range(2):
        assert {why: found.tolist() for why, found in records.unreadable().items()} == {
            "an image can't be decoded": [3, 149]
        }
    assert len(decoded) == 152


def test_without_pillow_no_image_is_called_broken(monkeypatch):
    monkeypatch.setattr("datasets.config.PIL_AVAILABLE", False)
    with pytest.raises(ImportError, match="Pillow"):
        Records(image_rows(2)).unreadable()


def _counting(function, calls):
    return lambda *given, **more: calls.append(1) or function(*given, **more)


def test_rows_without_images_become_empty_lists_and_say_so():
    rows = image_rows(5).to_list()
    rows[1]["image"] = rows[4]["image"] = None
    records = Records(Dataset.from_list(rows, features=image_rows(1).features))
    assert has_image(records.dataset).tolist() == [True, False, True, True, False]
    trained = records.for_training([0, 1, 4])
    assert trained.features["images"] == List(Image()) and "image" not in trained.column_names
    assert [len(images) for images in trained["images"]] == [1, 0, 0]
    assert np.array_equal(trained[0]["images"][0], captions(1)[0]["image"])
    lists = image_rows(4, layout="messages").to_list()
    lists[1]["images"], lists[2]["images"] = None, []
    lists[3]["images"] = [None, *lists[3]["images"]]
    for last in ([None], lists[0]["images"]):
        lists.append({**lists[0], "images": last})
    records = Records(Dataset.from_list(lists, features=image_rows(1, layout="messages").features))
    assert has_image(records.dataset).tolist() == [True, False, False, True, False, True]
    assert [len(images) for images in records.for_training()["images"]] == [1, 0, 0, 1, 0, 1]
    one = Records(Dataset.from_list([lists[0], lists[4]], features=image_rows(1, layout="messages").features))
    assert [len(images) for images in one.for_training()["images"]] == [1, 0]


def test_images_are_listed_without_decoding_them(no_decoding, monkeypatch):
    lists = image_rows(2, layout="messages").cast_column("images", List(Image(decode=False))).to_list()
    lists[1]["images"] = [None]
    features = image_rows(1, layout="messages").features
    trained = Records(Dataset.from_list(lists, features=features)).for_training()
    monkeypatch.undo()
    assert trained.features["images"] == List(Image()) and [len(found) for found in trained["images"]] == [1, 0]


@pytest.mark.parametrize("column", ["image", "images"])
def test_a_column_of_nulls_holds_no_images(column):
    rows = [{"text": "a", column: None}, {"text": "b", column: None if column == "image" else [None]}]
    for feature in (Image() if column == "image" else List(Image()), None):
        features = feature and Features({"text": Value("string"), column: feature})
        records = Records(Dataset.from_list(rows, features=features))
        assert records.images is None and records.for_training().column_names == ["text"]
    some = image_rows(40).to_list()
    for row in some[:39]:
        row["image"] = None
    assert Records(Dataset.from_list(some, features=image_rows(1).features)).images == "image"


@pytest.mark.parametrize("layout", ["sharegpt", "alpaca"])
def test_rows_that_become_chats_keep_their_images(layout, no_decoding, monkeypatch):
    rows = []
    for row in captions(4):
        prompt, answer = row["prompt"][0]["content"], row["completion"][0]["content"]
        chat = {"conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]}
        rows.append(
            (chat if layout == "sharegpt" else {"instruction": prompt, "output": answer}) | {"image": row["image"]}
        )
    trained = Records(Dataset.from_list(rows)).for_training([0, 2])
    monkeypatch.undo()
    assert "image" in trained.column_names and np.array_equal(trained[1]["image"], captions(4)[2]["image"])
    column = "messages" if layout == "sharegpt" else "completion"
    assert trained[1][column][-1]["content"] == captions(4)[2]["completion"][0]["content"]


def test_marks_of_images_in_turns_go_as_the_images_are_put_in_anew():
    turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A fox, not an <image>."}]
    rows = [{"conversations": turns, "image": captions(1)[0]["image"]}]
    records = Records(Dataset.from_list(rows))
    assert records[0].prompt == "What is this?" and records[0].answer == "A fox, not an ."
    assert [turn["content"] for turn in records.for_training()[0]["messages"]] == ["What is this?", "A fox, not an ."]
    without = Records(Dataset.from_list([{"conversations": turns}]))
    assert without[0].prompt == "<image>\nWhat is this?"


def _turned() -> Pillow.Image:
    """A picture of noise whose EXIF says that it lies on its side."""
    image = Pillow.effect_noise((24, 16), 50).convert("RGB")
    image.getexif()[Pillow.ExifTags.Base.Orientation] = 6
    return image


def _texts(image: Pillow.Image, folder) -> dict[str, str]:
    """An image as each text that a processor reads."""
    image.save(buffer := io.BytesIO(), "PNG", exif=image.getexif())
    (folder / "one.png").write_bytes(buffer.getvalue())
    code = base64.b64encode(buffer.getvalue()).decode()
    return {"path": str(folder / "one.png"), "url": f"data:image/png;base64,{code}", "base64": code}


@pytest.mark.parametrize("column", ["image", "images"])
@pytest.mark.parametrize("form", ["path", "url", "base64"])
def test_images_that_are_texts_are_read_as_the_processor_reads_them(tmp_path, form, column):
    text = _texts(_turned(), tmp_path)[form]
    rows = [{"text": "a", column: [given] if column == "images" else given} for given in (text, text[:-80], text)]
    if form == "path":
        rows[1] = {"text": "a", column: ["gone.png"] if column == "images" else "gone.png"}
    records = Records(Dataset.from_list(rows))
    assert {why: found.tolist() for why, found in records.unreadable().items()} == {"an image can't be decoded": [1]}
    (stored,) = stored_images(records.dataset, [0])[0]
    assert np.array_equal(picture(stored), load_image(text)) and picture(stored).size == (16, 24)


def test_an_image_column_is_read_as_its_dataset_reads_it(tmp_path):
    path = _texts(_turned(), tmp_path)["path"]
    for feature in (Image(), Image(mode="L"), List(Image()), LargeList(Image(mode="L"))):
        many = not isinstance(feature, Image)
        name = "images" if many else "image"
        rows = {"text": ["a"], name: [[path] if many else path]}
        dataset = Dataset.from_dict(rows, features=Features({"text": Value("string"), name: feature}))
        trained = Records(dataset).for_training()[0][name]
        read = picture(stored_images(dataset, [0])[0][0], image_mode(dataset))
        trained = trained[0] if many else trained
        assert np.array_equal(read, trained) and read.mode == trained.mode and read.size == (16, 24)


@pytest.mark.parametrize("layout", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2)])
def test_every_kind_of_list_holds_images(tmp_path, layout):
    text = _texts(captions(1)[0]["image"], tmp_path)["url"]
    column = pa.array([[text, text], [None, text], None, [None, None], ["no image", text]], layout(pa.string()))
    records = Records(Dataset(pa.table({"text": list("abcde"), "images": column})))
    assert has_image(records.dataset).tolist() == [True, True, False, False, True]
    assert records.undecodable.tolist() == [4]
    assert [len(images) for images in records.for_training()["images"]] == [2, 1, 0, 0, 2]


@pytest.mark.parametrize("feature", [{"bytes": Value("binary"), "path": Value("string")}, Image(decode=False)])
@pytest.mark.parametrize("many", [True, False])
def test_images_that_a_dataset_does_not_decode_are_decoded_for_training(feature, many):
    image = captions(1)[0]["image"]
    image.save(buffer := io.BytesIO(), "PNG")
    stored = {"bytes": buffer.getvalue(), "path": None}
    name = "images" if many else "image"
    features = Features({"text": Value("string"), name: List(feature) if many else feature})
    rows = Dataset.from_list([{"text": "a", name: [stored] if many else stored}], features=features)
    records = Records(rows)
    assert not records.unreadable() and records.for_training().features["images"] == List(Image())
    assert np.array_equal(records.for_training()[0]["images"][0], image)


def test_a_check_of_images_leaves_the_network_alone(monkeypatch, tmp_path):
    def refuse(*given, **more):
        raise AssertionError("an image was downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    url = "https://example.invalid/one.png"
    assert not Records(Dataset.from_dict({"text": ["a"], "image": [url]})).unreadable()
    features = Features({"text": Value("string"), "images": List(Image())})
    for path in (url, "hf://datasets/no/one/one.png", f"zip://one.png::{url}"):
        rows = Dataset.from_list([{"text": "a", "images": [{"bytes": None, "path": path}]}], features=features)
        assert not Records(rows).unreadable()
    local = Dataset.from_dict({"text": ["a", "b"], "image": [f"file://{tmp_path}/one.png", "ftp://one.png"]})
    assert Records(local).undecodable.tolist() == [0, 1]


def test_a_model_is_given_the_pixels_of_texts(tmp_path):
    from hf_dataselect.features.image_loss import held_out_loss

    model, processor = tiny_vlm()
    rows, found = captions(3), []
    for form in ("image", "path", "url", "base64"):
        given = [
            {**row, "image": row["image"] if form == "image" else _texts(row["image"], tmp_path / f"{i}")[form]}
            for i, row in enumerate(rows)
            if not (tmp_path / f"{i}").mkdir(exist_ok=True)
        ]
        ctx = context_of(processor.tokenizer, model, dtype="float32", processor=processor)
        found.append(held_out_loss(Records(Dataset.from_list(given)), ctx).mean)
    assert np.isfinite(found).all() and np.array_equal(found, [found[0]] * 4)
