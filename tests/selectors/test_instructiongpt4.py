"""InstructionGPT-4: image-text rows scored, clustered and trained on; its rule fitted, killed and resumed."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from datasets import Dataset, Features, Image
from PIL import Image as Pillow
from sklearn.cluster import SpectralClustering
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPProcessor

from hf_dataselect.cli.main import main
from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.tuning.warm_up import WarmupSettings, warmed_up
from hf_dataselect.features import image_text as vision
from hf_dataselect.features.clip import embed
from hf_dataselect.features.image_loss import held_out_loss
from hf_dataselect.features.image_text import ImageTextSources
from hf_dataselect.features.rewards import answer_rewards
from hf_dataselect.features.text_statistics import split_sentences
from hf_dataselect.fitted.rules.fit_rule import FitRuleArguments, fit_rule
from hf_dataselect.fitted.rules.rule import load_rule
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from tests.engines.llm.test_local import reward_model
from tests.processes import succeed
from tests.rows import alpaca
from tests.scripted import ScriptedJudge
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer
from tests.tiny_vision import captions, image_rows, save_clip, save_siglip, tiny_idefics, tiny_vlm


def judge(reply=lambda text: f"{len(text) % 101}\nFor a reason.") -> ScriptedJudge:
    return ScriptedJudge(reply)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> ImageTextSources:
    tokenizer, folder = tiny_tokenizer(), tmp_path_factory.mktemp("reward")
    reward_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ImageTextSources(save_clip(tmp_path_factory.mktemp("clip")), str(folder), components=3)


def context(vlm: bool = False, **changes) -> Context:
    given = {"judge": judge(), "max_length": 128, "dtype": "float32"} | changes
    if not vlm:
        return context_of(tiny_tokenizer(), **given)
    model, processor = tiny_vlm()
    return context_of(processor.tokenizer, model, processor=processor, **given)


def options(sources: ImageTextSources, **more) -> dict:
    return {"rule": "mean", "clip": sources.clip, "reward_model": sources.reward_model, "clusters": 3} | more


def with_images(rows: list[dict], like: Dataset) -> Dataset:
    return Dataset.from_list(rows, features=like.features)


def broken(dataset: Dataset, row: int) -> Dataset:
    """The dataset with an image cut short."""
    rows = dataset.cast_column("image", Image(decode=False)).to_list()
    rows[row]["image"] = {"bytes": rows[row]["image"]["bytes"][:60], "path": None}
    return with_images(rows, dataset)


# Embeddings and indicators -------------------------------------------------------------------------------------------


@torch.no_grad()
def plain_vectors(clip: str, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of images and of answers, one forward each."""
    model, processor = CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip)

    def unit(vectors: list[torch.Tensor]) -> torch.Tensor:
        mean = torch.stack([vector / vector.norm() for vector in vectors]).mean(0)
        return mean / mean.norm()

    images, texts = [], []
    for row, record in zip(dataset, Records(dataset), strict=True):
        pictures = row["images"] if "images" in row else [row["image"]]
        pixels = [processor(images=picture, return_tensors="pt") for picture in pictures]
        images.append(unit([model.get_image_features(**inputs).pooler_output[0] for inputs in pixels]))
        ids = [
            processor(text=text, truncation=True, return_tensors="pt") for text in split_sentences(record.answer)[:10]
        ]
        texts.append(unit([model.get_text_features(**inputs).pooler_output[0] for inputs in ids]))
    return torch.stack(images).numpy(), torch.stack(texts).numpy()


@pytest.mark.parametrize("batch_tokens", [1, 40, 10**5])
def test_embeddings_are_those_of_one_plain_forward_each(sources, batch_tokens, tmp_path):
    rows = image_rows(7, layout="messages").to_list()
    rows[2]["images"] = rows[2]["images"] + rows[3]["images"]
    rows[4]["messages"][1]["content"] = "One. Two three! " * 8 + "A red fox?"
    rows = with_images(rows, image_rows(1, layout="messages"))
    image, text = plain_vectors(sources.clip, rows)
    ctx = context(batch_tokens=batch_tokens, cache_dir=tmp_path)
    found = embed(Records(rows), ctx, sources.clip)
    np.testing.assert_allclose(found.image, image, atol=1e-5)
    np.testing.assert_allclose(found.text, text, atol=1e-5)
    tokenizer, answers = CLIPProcessor.from_pretrained(sources.clip).tokenizer, [r.answer for r in Records(rows)]
    assert ctx.account.passes == {"embedded_rows": 7 + 6, "cached_rows": 1}, "two images are the same"
    lengths = [max(len(tokenizer(text)["input_ids"]) for text in split_sentences(answer)) for answer in answers]
    assert max(lengths) > 40 > min(lengths)
    cut = [row for row, length in enumerate(lengths) if length > 40 or row == 4]
    assert list(ctx.account.rows("truncated").values()) == [cut]
    again = context(cache_dir=tmp_path)
    same = embed(Records(rows), again, sources.clip)
    assert (same.image == found.image).all() and (same.text == found.text).all()
    assert again.account.passes == {"embedded_rows": 0, "cached_rows": 14}


@torch.no_grad()
def test_siglip_gets_texts_that_fill_its_window(tmp_path):
    clip, rows = save_siglip(tmp_path), image_rows(3)
    model, processor = AutoModel.from_pretrained(clip).eval(), AutoProcessor.from_pretrained(clip)
    found = embed(Records(rows), context(), clip)
    for row, image, text in zip(rows, found.image, found.text, strict=True):
        inputs = processor(
            images=row["image"],
            text=row["completion"][0]["content"].rstrip("."),
            padding="max_length",
            truncation=True,
            max_length=40,
            return_tensors="pt",
        )
        expected = model(**inputs)
        np.testing.assert_allclose(image, expected.image_embeds[0], atol=1e-5)
        np.testing.assert_allclose(text, expected.text_embeds[0], atol=1e-5)


def test_indicators_are_what_they_say(sources):
    records, ctx = Records(image_rows(12)), context()
    found, basis, _ = sources.measure(records, ctx, sources.names)
    image, text = plain_vectors(sources.clip, records.dataset)
    assert list(found) == ["clip", "len", "rew", "judge", "pca1", "pca2", "pca3"]
    np.testing.assert_allclose(found["clip"], (image * text).sum(1), atol=1e-5)
    assert found["len"].tolist() == [len(record.answer) for record in records]
    np.testing.assert_array_equal(found["rew"], answer_rewards(records, context(), sources.reward_model))
    asked = ctx.judge.asked
    assert found["judge"].tolist() == [len(text) % 101 for text in asked] and len(asked) == len(set(asked))
    assert all(record.answer in text and record.prompt in text for record, text in zip(records, asked, strict=False))
    joint = np.hstack([image, text])
    axes = np.linalg.svd(joint - joint.mean(0), full_matrices=False)[2][:3]
    for i in range(3):
        expected, column = (joint - joint.mean(0)) @ axes[i], found[f"pca{i + 1}"]
        np.testing.assert_allclose(column * np.sign(column @ expected), expected, atol=1e-4)
    few, *_ = sources.measure(Records(image_rows(12).select([3])), context(), ["pca"], basis)
    assert few["pca2"][0] == pytest.approx(found["pca2"][3], abs=1e-5)  # the axes are kept, not fitted anew


def test_principal_components_of_many_rows_are_those_of_a_sample(sources, monkeypatch):
    records = Records(image_rows(30))
    whole = sources.measure(records, context(), ["pca"])[1]
    monkeypatch.setattr(vision, "PCA_SAMPLE", 20)
    found, basis, _ = sources.measure(records, context(), ["pca"])
    drawn = np.sort(np.random.default_rng(42).choice(30, 20, replace=False))
    expected = sources.measure(Records(image_rows(30).select(drawn)), context(), ["pca"])[1]
    np.testing.assert_allclose(basis["pca.mean"], expected["pca.mean"], atol=1e-5)
    assert np.abs(basis["pca.mean"] - whole["pca.mean"]).max() > 1e-3 and np.isfinite(found["pca3"]).all()


def test_a_rating_that_can_not_be_read_is_nan_and_named(sources):
    replies = iter(["10", "100", "no idea", None, "101"])
    ctx = context(judge=judge(lambda text: next(replies)))
    rows = image_rows(5).to_list()
    for i, row in enumerate(rows):
        row["completion"][0]["content"] += str(i)
    found, *_ = sources.measure(Records(with_images(rows, image_rows(1))), ctx, ["judge"])
    np.testing.assert_array_equal(found["judge"], [10, 100, np.nan, np.nan, np.nan])
    named = ctx.account.rows("unscorable")
    assert named == {
        "no reply from the judge: it says nothing": [3],
        "no rating on the first line of the judge's reply": [2, 4],
    }


# Selection -----------------------------------------------------------------------------------------------------------


def test_the_mean_of_standardised_indicators(sources):
    rows = image_rows(20)
    selection = select(rows, load_selector("instructiongpt4", options(sources)), 8, context())
    found, *_ = sources.measure(Records(rows), context(), ["clip", "len", "rew", "judge"])
    values = np.column_stack(list(found.values()))
    expected = ((values - values.mean(0)) / values.std(0)).mean(1)
    np.testing.assert_allclose(selection.scores, expected, atol=1e-5)
    assert len(selection.indices) == 8 and sum(selection.facts["figures"]["rows by cluster"].values()) == 20
    assert len(selection.facts["figures"]["rows by cluster"]) == 3


@pytest.mark.parametrize("cached", [False, True])
def test_rows_that_miss_something_are_nan_and_named(sources, cached, tmp_path):
    rows = broken(image_rows(12), 3).cast_column("image", Image(decode=False)).to_list()
    rows[5]["image"], rows[7]["completion"][0]["content"] = None, " "
    rows[8]["completion"][0]["content"] = "..."
    rows = with_images(rows, image_rows(1))
    selector, ctx = load_selector("instructiongpt4", options(sources)), context(cache_dir=tmp_path if cached else None)
    selection = select(rows, selector, 12, ctx)
    assert np.flatnonzero(np.isnan(selection.scores)).tolist() == [3, 5, 7]
    assert selection.dropped == {"an image can't be decoded": [3]}
    assert selection.unscorable["no answer"] == [7]
    assert [rows for why, rows in selection.unscorable.items() if why.startswith("no image, where")] == [[5]]
    assert len(selection.indices) == 9 and not {3, 5, 7} & set(selection.indices.tolist())


def test_a_list_of_nulls_is_no_image(sources):
    rows = image_rows(3, layout="messages").to_list()
    rows[2]["images"] = [None]
    ctx = context()
    found = embed(Records(with_images(rows, image_rows(1, layout="messages"))), ctx, sources.clip)
    assert np.isnan(found.image).all(1).tolist() == [False, False, True]
    assert list(ctx.account.rows("unscorable").values()) == [[2]]


def test_rows_without_images_say_what_is_left_out(sources, caplog):
    caplog.set_level("INFO", "hf_dataselect")
    selector = load_selector("instructiongpt4", options(sources))
    selector.check(Records(alpaca(2)))
    selection = select(alpaca(12), selector, 4, context())
    assert selection.facts["figures"]["left out, as no row has an image"] == "clip, images in embeddings"
    assert "leaves out, as no row has an image: clip" in caplog.text and "left out" in selection.summary()
    found, *_ = sources.measure(Records(alpaca(12)), context(), ["len", "rew", "judge"])
    values = np.column_stack(list(found.values()))
    np.testing.assert_allclose(selection.scores, ((values - values.mean(0)) / values.std(0)).mean(1), atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_fewer_rows_than_clusters_are_each_their_own(sources, n):
    selector = load_selector("instructiongpt4", options(sources, clusters=10))
    selection = select(image_rows(24).select(range(n)), selector, 1.0, context())
    assert sorted(selection.indices.tolist()) == list(range(n))
    assert len(selection.facts["figures"]["rows by cluster"]) == n


def test_identical_rows_are_one_cluster(sources):
    same = Dataset.from_list([image_rows(1)[0]] * 12, features=image_rows(1).features)
    selection = select(same, load_selector("instructiongpt4", options(sources)), 5, context())
    assert len(selection.indices) == 5 and (selection.scores == 0).all()
    assert selection.facts["figures"]["rows by cluster"] == {"no. 1": 12}


@pytest.mark.parametrize("k", [5, 12])
def test_the_best_of_clusters_of_images_and_texts_are_kept(sources, k):
    rows = image_rows(40)
    selection = select(rows, load_selector("instructiongpt4", options(sources)), k, context())
    found = embed(Records(rows), context(), sources.clip)
    kept = {
        name: best_by_cluster(vectors, selection.scores, k)
        for name, vectors in (("both", np.hstack([found.image, found.text])), ("text", found.text))
    }
    assert selection.indices.tolist() == kept["both"]
    assert kept["both"] not in (kept["text"], np.argsort(-selection.scores, kind="stable")[:k].tolist())


def best_by_cluster(vectors: np.ndarray, scores: np.ndarray, k: int) -> list[int]:
    """Rows in the order of their scores, by the words of the paper."""
    different, which = np.unique(vectors, axis=0, return_inverse=True)
    model = SpectralClustering(3, affinity="nearest_neighbors", n_neighbors=10, random_state=42)
    labels = model.fit_predict(different)[which.reshape(-1)]
    order = np.argsort(-scores, kind="stable").tolist()
    members = [[row for row in order if labels[row] == label] for label in range(3)]
    first = sum((rows[: max(1, k * len(rows) // len(order))] for rows in members), [])
    kept = first + [row for row in order if row not in first][: k - len(first)]
    return [row for row in order if row in kept]


def test_a_row_that_can_not_be_embedded_is_not_kept_for_its_length(sources):
    rows = image_rows(12).to_list()
    rows[3]["completion"][0]["content"] += " And more of it." * 20
    rows[3]["image"] = None
    given = options(sources, indicators=["len"])
    selection = select(with_images(rows, image_rows(1)), load_selector("instructiongpt4", given), 6, context())
    assert np.flatnonzero(np.isnan(selection.scores)).tolist() == [3] and 3 not in selection.indices


def choose_on_rank(sources: ImageTextSources, folder: Path) -> None:
    ranks = Accelerator(cpu=True)
    found = chosen(sources, ranks)
    if ranks.is_main_process:
        (folder / "found.json").write_text(json.dumps(found))
    ranks.wait_for_everyone()
    ranks.end_training()


def test_two_ranks_choose_the_rows_of_one(sources, tmp_path):
    succeed(choose_on_rank, sources, tmp_path, folder=tmp_path)
    one, two = chosen(sources), json.loads((tmp_path / "found.json").read_text())
    assert two == one | {"processes": 2} and one["dropped"] == {"an image can't be decoded": [4]}


def chosen(sources: ImageTextSources, accelerator: Accelerator | None = None) -> dict:
    """What is kept of 30 rows, one of which has a broken image."""
    selector = load_selector("instructiongpt4", options(sources, indicators=["clip", "len", "rew"]))
    found = select(broken(image_rows(30), 4), selector, 8, context(accelerator=accelerator, batch_tokens=64))
    processes = accelerator.num_processes if accelerator else 1
    return {"indices": found.indices.tolist(), "dropped": found.dropped, "processes": processes}


# A real training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["prompt-completion", "messages", "parts"])
def test_a_vision_language_model_is_trained_on_the_rows_kept(sources, layout, tmp_path):
    model, processor = tiny_vlm()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    dataset, seen = image_rows(16, layout=layout), []
    trainer = tiny_trainer(
        tmp_path,
        "instructiongpt4",
        options(sources, indicators=["clip", "len", "rew"]),
        model=model,
        processing_class=processor,
        train_dataset=dataset,
        eval_dataset=image_rows(4, seed=9, layout=layout),
        selection_budget=6,
    )
    collate = trainer.data_collator
    trainer.data_collator = lambda examples: seen.extend(map(dict, examples)) or collate(examples)
    trainer.train()
    kept = dataset.select(trainer.selection.indices)
    assert trainer.train_dataset.features == dataset.features  # untouched
    column = "completion" if layout == "prompt-completion" else "messages"
    # Three steps of two rows; then those of the evaluation.
    assert [row[column] for row in seen[:6]] == [row[column] for row in _in_order(seen[:6], kept, column)]
    assert any((w != before[name]).any() for name, w in model.named_parameters())
    evaluation = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert np.isfinite(evaluation["settings"]["answer_loss"]["score"]) and evaluation["unscorable"] == {}
    again = tiny_trainer(
        tmp_path / "b", model=model, processing_class=processor, train_dataset=image_rows(16, layout=layout)
    )
    assert again.records.content_hash() == trainer.selection.facts["dataset"]


def _in_order(seen: list[dict], kept: Dataset, column: str) -> list[dict]:
    """The rows kept, each once, in the order in which they were seen."""
    left = list(kept)
    return [left.pop(next(i for i, row in enumerate(left) if row[column] == one[column])) for one in seen]


def test_evaluation_rows_with_images_are_made_ready_as_those_of_the_training_are(tmp_path):
    model, processor = tiny_vlm()
    rows = [{"conversations": [row["prompt"][0], row["completion"][0]], "image": row["image"]} for row in captions(5)]
    rows[1]["image"], rows[3]["conversations"] = None, []
    features = Features(conversations=image_rows(1).features["prompt"], image=Image())
    dataset = Dataset.from_list(rows, features=features)
    given = {"model": model, "processing_class": processor, "train_dataset": dataset, "eval_strategy": "epoch"}
    trainer = tiny_trainer(tmp_path, eval_dataset=dataset, num_train_epochs=1, max_steps=-1, **given)
    trainer.train()
    assert len(trainer.eval_dataset) == 4 and trainer.selection.dropped == {"no turns": [3]}
    evaluation = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert sum(evaluation["unscorable"].values(), []) == [3]
    with pytest.raises(ValueError, match="not supported for rows with images"):
        tiny_trainer(tmp_path / "b", eval_dataset=dataset, benchmark_metrics=["exact_match"], **given)


@pytest.mark.parametrize("make", [tiny_vlm, tiny_idefics])
def test_rows_with_and_without_images_can_be_trained_on_together(make, tmp_path):
    model, processor = make()
    rows = image_rows(8).to_list()
    for row in (1, 4, 5):
        rows[row]["image"] = None
    trainer = tiny_trainer(
        tmp_path,
        model=model,
        processing_class=processor,
        train_dataset=with_images(rows, image_rows(1)),
        eval_dataset=with_images(rows, image_rows(1)),
        num_train_epochs=1,
        max_steps=-1,
    )
    trainer.train()
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["unscorable"] == {}
    assert [len(images) for images in trainer.train_dataset["images"]] == [1, 0, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("method", ["full", "random"])
def test_any_method_trains_without_the_rows_whose_images_can_not_be_decoded(method, tmp_path):
    model, processor = tiny_vlm()
    trainer = tiny_trainer(
        tmp_path,
        method,
        selection_budget=1.0,
        model=model,
        processing_class=processor,
        train_dataset=broken(broken(image_rows(6), 0), 4),
        eval_dataset=broken(image_rows(3, seed=9), 1),
        eval_strategy="epoch",
        num_train_epochs=1,
        max_steps=-1,
    )
    trainer.train()
    assert sorted(trainer.selection.indices.tolist()) == [1, 2, 3, 5] and len(trainer.eval_dataset) == 2
    assert trainer.selection.dropped == {"an image can't be decoded": [0, 4]}


def turned_and_see_through(dataset: Dataset) -> Dataset:
    """The dataset with a photo whose camera was held upright, one with a palette, and one that is half transparent."""
    rows, noise = dataset.cast_column("image", Image(decode=False)).to_list(), Pillow.effect_noise((20, 12), 90)
    exif = Pillow.Exif()
    exif[Pillow.ExifTags.Base.Orientation] = 6
    see_through = noise.convert("RGBA")
    see_through.putalpha(Pillow.linear_gradient("L").resize((20, 12)))
    saved = [(noise, {"exif": exif}), (noise.convert("P"), {}), (see_through, {})]
    for row, (picture, more) in enumerate(saved):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", **more)
        rows[row]["image"] = {"bytes": buffer.getvalue(), "path": None}
    return with_images(rows, dataset)


def test_clip_sees_images_as_the_dataset_decodes_them(sources):
    rows = turned_and_see_through(image_rows(3))
    expected = plain_vectors(sources.clip, rows.cast_column("image", Image(mode="RGB")))[0]
    np.testing.assert_allclose(embed(Records(rows), context(), sources.clip).image, expected, atol=1e-5)


@pytest.mark.parametrize("make", [tiny_vlm, tiny_idefics])
def test_the_loss_of_held_out_rows_is_that_of_the_trainers_own_batches(make, tmp_path, monkeypatch):
    model, processor = make()
    ctx = Context(
        processor.tokenizer,
        model,
        runtime=Runtime(dtype="float32", batch_tokens=300),
        processor=processor,
        max_length=128,
    )
    whole = turned_and_see_through(image_rows(7))
    turns = [{"role": "user", "content": "And its colour?"}, {"role": "assistant", "content": "Red, or nearly so."}]
    more = whole.to_list()
    more[6]["prompt"] += more[6]["completion"] + turns[:1]
    more[6]["completion"] = turns[1:]
    rows = broken(with_images(more, whole), 3)
    compared, plain = [], torch.nn.functional.cross_entropy

    def counting(logits, *given, **more):
        compared.append(logits.numel())
        return plain(logits, *given, **more)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", counting)
    found = held_out_loss(Records(rows), ctx)
    monkeypatch.undo()
    assert sum(compared) == np.nansum(found.tokens) * model.get_input_embeddings().num_embeddings
    assert np.isnan(found.mean[3]) and np.isfinite(np.delete(found.mean, 3)).all()
    assert sum(ctx.account.rows("unscorable").values(), []) == [3]
    trainer = tiny_trainer(tmp_path, model=ctx.model, processing_class=ctx.processor, train_dataset=image_rows(2))
    for row in (0, 1, 2, 5, 6):
        batch = trainer.data_collator([rows[row]])
        with torch.no_grad():
            expected = ctx.model(**batch).loss
        assert found.mean[row] == pytest.approx(float(expected), rel=1e-5)
        assert found.tokens[row] == (batch["labels"] != -100).sum()
    of_both = image_rows(7, layout="messages").to_list()
    of_both[6]["messages"] += turns
    of_both[6]["images"] = whole.select([6]).cast_column("image", Image(decode=False))["image"]
    of_both = with_images(of_both[6:], image_rows(1, layout="messages"))
    last = held_out_loss(Records(of_both), ctx)
    assert last.mean[0] == pytest.approx(found.mean[6], rel=1e-5) and last.tokens[0] == found.tokens[6]
    seen = []

    def see(module, _, given):
        seen.append((given["pixel_values"].dtype, next(module.parameters()).dtype))

    hook = model.register_forward_pre_hook(see, with_kwargs=True)
    held_out_loss(Records(image_rows(2)), replace(ctx, runtime=Runtime(dtype="bfloat16")))
    hook.remove()
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
    short = replace(ctx, max_length=6, runtime=Runtime(dtype="float32"))
    assert np.isnan(held_out_loss(Records(image_rows(2)), short).mean).all()
    assert sum(short.account.rows("unscorable").values(), []) == [0, 1]


# Fitting -------------------------------------------------------------------------------------------------------------


def settings() -> WarmupSettings:
    return WarmupSettings(epochs=1, learning_rate=1e-2, batch_size=4, gradient_accumulation=1)


def test_a_fit_with_attention_is_killed_and_resumed_and_used_on_other_rows(sources, tmp_path, monkeypatch, caplog):
    records, held_out = Records(broken(image_rows(24), 5)), Records(image_rows(4, seed=9))
    arguments = FitRuleArguments(regressor="attention", subsets=6, subset_rows=6)
    tuned = []

    def counting(*given, **more):
        tuned.append(1)
        if len(tuned) == 4:
            raise KeyboardInterrupt
        return warmed_up(*given, **more)

    monkeypatch.setattr("hf_dataselect.features.tuned_loss.warmed_up", counting)
    given = (records, held_out, context(vlm=True), sources, arguments, settings())
    with pytest.raises(KeyboardInterrupt):
        fit_rule(*given, tmp_path)
    rule = fit_rule(*given, tmp_path)
    assert len(tuned) == 4 + 3
    lines = [json.loads(line) for line in (tmp_path / "subsets.jsonl").read_text().split("\n") if line]
    assert [line["subset"] for line in lines] == list(range(6)) and all(len(line["rows"]) == 6 for line in lines)
    assert all(5 not in line["rows"] for line in lines) and len({line["loss"] for line in lines}) == 6
    written = json.loads((tmp_path / "rule.json").read_text())
    assert written["regressor"] == "attention" and list(written["standard"])[-1] == "pca3" and written["subsets"] == 6
    assert written["sources"] == {"clip": sources.clip, "components": 3, "reward_model": sources.reward_model}
    assert max(written["r2"], written["left_out_r2"]) <= 1

    found, *_ = sources.measure(records, context(), sources.names, rule.tensors)
    foretold = [np.mean(rule.log_loss(found)[line["rows"]]) for line in lines]
    losses = np.log([line["loss"] for line in lines])
    assert rule.r2 == pytest.approx(
        1 - ((losses - foretold) ** 2).sum() / ((losses - losses.mean()) ** 2).sum(), abs=1e-6
    )

    loaded = load_rule(str(tmp_path / "rule.json"), type(sources))
    assert loaded.about["method"] == "instructiongpt4"
    selector = load_selector("instructiongpt4", {"rule": str(tmp_path / "rule.json"), "clusters": 2})
    others = image_rows(16, seed=3)
    selector.check(Records(others))
    caplog.clear()
    selection = select(others, selector, 4, context())
    assert set(loaded.about["identities"]) == {"clip", "reward_model", "judge"}
    assert "was fitted with another" not in caplog.text
    swapped, other = save_clip(tmp_path / "clip", seed=1), context()
    other.judge.name = "another"
    copied = str(shutil.copytree(sources.reward_model, tmp_path / "copy"))
    given = {"rule": selector.rule, "clip": swapped, "reward_model": copied}
    select(others, load_selector("instructiongpt4", given), 4, other)
    assert "The rule was fitted with another clip, judge:" in caplog.text
    values, *_ = sources.measure(Records(others), context(), sources.names, rule.tensors)
    np.testing.assert_allclose(selection.scores, -loaded.log_loss(values), rtol=1e-4, atol=1e-5)
    half = select(others.select(range(8)), selector, 4, context())
    np.testing.assert_allclose(half.scores, selection.scores[:8], atol=1e-4)  # no row's score depends on the others

    with pytest.raises(ValueError, match="was fitted to rows with images, and `train_dataset` is without"):
        selector.check(Records(alpaca(4)))
    rows = (tmp_path / "rule.safetensors").read_bytes()
    (tmp_path / "rule.safetensors").write_bytes(rows[:-1] + bytes([rows[-1] ^ 1]))
    with pytest.raises(ValueError, match="is not a rule file: rule.safetensors beside it is not the one"):
        load_selector("instructiongpt4", {"rule": str(tmp_path / "rule.json")})


def test_the_command_fits_a_rule_for_a_vision_language_model(sources, tmp_path, capsys):
    model, processor = tiny_vlm()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    image_rows(16).save_to_disk(tmp_path / "rows")
    image_rows(3, seed=9).save_to_disk(tmp_path / "heldout")
    recipe = {
        "model_name_or_path": str(tmp_path / "model"),
        "dataset_name": str(tmp_path / "rows"),
        "eval_dataset_name": str(tmp_path / "heldout"),
        "output_dir": str(tmp_path / "run"),
        "selection_cache_dir": str(tmp_path / "cache"),
        "selection_dtype": "float32",
        "selection_method": "instructiongpt4",
        "selection_kwargs": options(sources, rule=str(tmp_path / "run" / "rule.json"), components=2),
        "selection_budget": 5,
        "max_length": 128,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    given = ["--config", str(tmp_path / "recipe.yaml")]
    fitting = ["--regressor", "attention", "--subsets", "4", "--subset_rows", "4", "--num_train_epochs", "1"]
    with pytest.raises(SystemExit):
        main(["select", *given])
    assert "Fit one with `hf-dataselect fit-rule" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit-rule", *given, *fitting, "--indicators", "mtld"])
    assert "must be different names of clip, len" in capsys.readouterr().err
    main(["fit-rule", *given, *fitting, "--indicators", "clip", "len", "pca"])
    assert "R2" in (shown := capsys.readouterr().out) and "over 4 subsets" in shown and "left out of the fit" in shown
    main(["train", *given, "--max_steps", "2", "--save_strategy", "no"])
    chosen = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert chosen["kept"] == 5 and (tmp_path / "run" / "eval.json").exists()


# Wrong input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, named",
    [
        ({"indicators": ["pca"]}, "must be different names of clip, len, rew, judge"),
        ({"indicators": []}, "must be different names"),
        ({"clusters": 0}, "clusters=0 must be at least 1"),
        ({"components": 0}, "components=0 must be at least 1"),
    ],
)
def test_options_that_can_not_be_are_refused(change, named):
    with pytest.raises(ValueError, match=named):
        load_selector("instructiongpt4", {"rule": "mean", **change})


def test_what_is_missing_is_named_before_anything_loads(sources, tmp_path):
    rows = Records(image_rows(2))
    for rule, why in ((None, "no rule is given"), (str(tmp_path / "none.json"), "there is no file")):
        with pytest.raises(ValueError, match=why):
            load_selector("instructiongpt4", {"rule": rule}).check(rows)
    with pytest.raises(ValueError, match="need rows with images"):
        load_selector("instructiongpt4", options(sources, indicators=["clip"])).check(Records(alpaca(2)))
    shutil.copytree(sources.clip, tmp_path / "clip")
    for part in tiny_vlm():
        part.save_pretrained(tmp_path / "vlm")
    (tmp_path / "vlm" / "model.safetensors").unlink()
    for file in ("preprocessor_config.json", "processor_config.json"):
        (tmp_path / "clip" / file).unlink(missing_ok=True)
    for clip, why in (
        (str(tmp_path / "clip"), "or has no processor"),
        (str(tmp_path / "nowhere"), "can't be found"),
        (sources.reward_model, "not an image-text model"),
        (str(tmp_path / "vlm"), "not an image-text model"),
    ):
        with pytest.raises(ValueError, match=why):
            load_selector("instructiongpt4", options(sources, clip=clip)).check(rows)


def test_images_need_a_processor_and_a_template_that_places_them(tmp_path):
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match="`processing_class` is a .*Tokenizer.*, which takes texts only"):
        tiny_trainer(tmp_path, model=tiny_model(tokenizer), processing_class=tokenizer, train_dataset=image_rows(2))
    model, processor = tiny_vlm()
    processor.chat_template = None
    with pytest.raises(ValueError, match="no chat template, which places images"):
        tiny_trainer(tmp_path, model=model, processing_class=processor, train_dataset=image_rows(2))


def test_images_of_a_column_that_no_one_looks_at_are_named(tmp_path, caplog):
    tiny_trainer(tmp_path, train_dataset=image_rows(2).rename_column("image", "picture"))
    assert "`train_dataset` has images in 'picture', which are ignored" in caplog.text
    caplog.clear()
    model, processor = tiny_vlm()
    tiny_trainer(tmp_path / "b", model=model, processing_class=processor, train_dataset=image_rows(2))
    assert "which are ignored" not in caplog.text


def test_a_method_that_reads_texts_says_so_of_images(tmp_path, caplog):
    model, processor = tiny_vlm()
    tiny_trainer(tmp_path, "length", model=model, processing_class=processor, train_dataset=image_rows(2))
    assert "reads the texts of rows only" in caplog.text


TUNED = {"warmup_learning_rate": 1e-2, "warmup_batch_size": 2, "warmup_gradient_accumulation": 1}


@pytest.mark.parametrize(
    "method, kwargs",
    [
        ("ifd", TUNED | {"warmup_clusters": 2, "warmup_rows_per_cluster": 2}),
        ("less", TUNED | {"warmup_epochs": 1, "warmup_fraction": 0.5, "projection_dim": 64, "lora_r": 2}),
        ("rds", {}),
        ("nuggets", {"tasks": 3, "threshold": None}),
        ("perplexity", {}),
    ],
)
@pytest.mark.parametrize("make", [tiny_vlm, tiny_idefics])
def test_methods_of_texts_run_a_vision_language_model(method, kwargs, make, tmp_path):
    model, processor = make()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    image_rows(3, seed=9).remove_columns("image").to_json(tmp_path / "target.jsonl")
    given = {"selection_target": str(tmp_path / "target.jsonl")} if method in ("less", "rds") else {}
    rows = {"train_dataset": image_rows(12), "selection_budget": 4}
    trainer = tiny_trainer(tmp_path, method, kwargs, model=model, processing_class=processor, **rows, **given)
    selection = trainer.select()
    assert len(selection.indices) == 4 and np.isfinite(selection.scores).all()
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_a_fit_that_looks_at_no_image_trains_on_none_that_is_broken(sources, tmp_path):
    arguments = FitRuleArguments(subsets=4, subset_rows=4, indicators=["len"])
    given = (Records(broken(image_rows(12), 3)), Records(image_rows(2)), context(vlm=True), sources)
    rule = fit_rule(*given, arguments, settings(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "subsets.jsonl").read_text().split("\n") if line]
    assert list(rule.coefficients) == ["len"] and all(3 not in line["rows"] for line in lines) and len(lines) == 4


def test_too_few_subsets_for_columns_are_refused_before_tuning(sources, tmp_path):
    arguments = FitRuleArguments(subsets=6, subset_rows=4)
    given = (Records(image_rows(12)), Records(image_rows(2)), context(vlm=True), sources, arguments, settings())
    with pytest.raises(ValueError, match="can't determine 7 coefficients and an intercept: it takes 9"):
        fit_rule(*given, tmp_path)
    none = FitRuleArguments(subsets=8, subset_rows=2, indicators=["clip"])
    with pytest.raises(ValueError, match="need rows with images"):
        fit_rule(Records(alpaca(12)), *given[1:4], none, settings(), tmp_path)
    few = FitRuleArguments(subsets=8, subset_rows=2, indicators=["pca"])
    with pytest.raises(ValueError, match="components=3 needs more rows or wider embeddings: got 3 rows"):
        fit_rule(Records(image_rows(3)), *given[1:4], few, settings(), tmp_path)
