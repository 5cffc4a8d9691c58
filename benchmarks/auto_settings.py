"""
How often `auto` is worse than random rows, and what share of the best method's gain it gets, over many settings.

    python benchmarks/auto_settings.py POOL_FOLDER [--seeds 0 1 2] [--results FILE]

POOL_FOLDER is that of planted_sources.py. A small Llama is trained in code on rows of three sources. A setting is a
pool of other rows of these, a budget and a seed:

- `target`: all sources; a target of one of them, half of which decides at a time.
- `noise`: all sources, half of the answers exchanged; clean rows decide.
- `plain`: one source; rows of it decide.
- `harm`: all sources, a third of the answers replaced by long runs of words; clean rows decide.

Held-out rows apart from all of these tell the truth: the loss after training on what `auto` keeps, on what each method
keeps, and on 8 random subsets.
The loop that trains is plain, and `auto_budget` is counted in rows, as so small a training is mostly overhead: one for
a row trained on in an epoch, a third for one that is scored or evaluated. `--times 1` allows as much as training on
the whole pool takes. A killed benchmark goes on; lines of `--results` are settings.
"""

import argparse
import copy
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from planted_sources import sources
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, logging

from hf_dataselect.data.chat_template import default_chat_template
from hf_dataselect.data.records import Records
from hf_dataselect.evaluation.audit.estimate import Part
from hf_dataselect.evaluation.audit.gain import gain
from hf_dataselect.fitted.subset_losses import Measured
from hf_dataselect.pipeline import select
from hf_dataselect.training import trials
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.trainer import DataSelectingTrainer


KINDS = ("target", "noise", "plain", "harm")
POOL, DECIDING, TEST, RANDOM, EPOCHS = 480, 48, 120, 8, 3
#: What a row costs that is scored or evaluated, beside one that is trained on.
FORWARD = 1 / 3


class PlainTraining:
    """Loss of held-out rows after training on rows: AdamW, linear decay, answers only. TRL's set-up takes longer."""

    def __init__(self, model: Any, ctx: Any, records: Records, held_out: Records):
        self.model, self.batch, self.done = model, 8, {}
        self.rows, self.held_out = self._read(ctx, records), self._read(ctx, held_out)

    def _read(self, ctx: Any, records: Records) -> list[tuple[torch.Tensor, torch.Tensor]]:
        found = []
        for ids, spans in ctx.trained(records).tokens.take(range(len(records))):
            ids = torch.from_numpy(ids.astype(np.int64))
            labels = torch.full_like(ids, -100)
            for start, end in spans:
                labels[start:end] = ids[start:end]
            found.append((ids, labels))
        return found

    def _losses(self, model: Any, some: list) -> torch.Tensor:
        ids = torch.nn.utils.rnn.pad_sequence([ids for ids, _ in some], batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence([labels for _, labels in some], batch_first=True, padding_value=-100)
        logits = model(input_ids=ids).logits[:, :-1].transpose(1, 2)
        losses = torch.nn.functional.cross_entropy(logits, labels[:, 1:], reduction="none")
        return losses.sum(1) / (labels[:, 1:] != -100).sum(1)  # NaN without an answer

    def __call__(self, rows: np.ndarray, seed: int) -> np.ndarray:
        key = tuple(rows.tolist()), seed
        if key in self.done:
            return self.done[key]
        model, draw = copy.deepcopy(self.model).train(), np.random.default_rng(seed)
        steps = EPOCHS * -(-len(rows) // self.batch)
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for _ in range(EPOCHS):
            order = draw.permutation(rows)
            for start in range(0, len(order), self.batch):
                self._losses(model, [self.rows[row] for row in order[start : start + self.batch]]).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        with torch.no_grad():
            losses = torch.cat(
                [self._losses(model, self.held_out[i : i + 32]) for i in range(0, len(self.held_out), 32)]
            )
        self.done[key] = losses.double().numpy()
        return self.done[key]


class CountedTrials(trials.Trials):
    """Trials whose seconds are rows, see above."""

    times, model = 1.0, None

    def __init__(self, planned: Any, trainer: Any, ctx: Any):
        self.rows_trained, self.training = 0.0, None
        super().__init__(planned, trainer, ctx)
        self.seconds = self.times * EPOCHS * POOL

    @property
    def spent(self) -> float:
        return self.rows_trained + FORWARD * self._ctx.account.passes.get("forward_rows", 0)

    def plan(self, trainings: int) -> None:
        self.seconds, seconds = None if not self.random else self.seconds, self.seconds
        super().plan(trainings)
        self.seconds = seconds

    def _train(self, rows: np.ndarray, seed: int, name: str) -> Measured:
        if self.training is None:
            self.training = PlainTraining(self.model, self._ctx, self._trainer.records, self._planned.held_out)
        self.cost = EPOCHS * len(rows) + FORWARD * len(self._planned.held_out)
        self.rows_trained += self.cost
        return Measured(self.training(rows, seed), {})


def pretrained(rows: list[dict], steps: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A model that has seen some rows of each source."""
    torch.manual_seed(0)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "</s>"]
    texts = [" ".join(row.values()) for row in rows]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=1024, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = default_chat_template(tokenizer)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=256, pad_token_id=0, eos_token_id=1, **size
    )
    model = LlamaForCausalLM(config)
    optimizer, draw = torch.optim.AdamW(model.parameters(), 3e-3), np.random.default_rng(0)
    chats = [
        tokenizer.apply_chat_template(
            [
                {"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()},
                {"role": "assistant", "content": row["output"]},
            ],
            tokenize=False,
        )
        for row in rows
    ]
    for _ in range(steps):
        some = [chats[i] for i in draw.choice(len(chats), 16)]
        batch = tokenizer(some, return_tensors="pt", padding=True, truncation=True, max_length=96)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"model: {model.num_parameters():,} weights, last loss {loss.item():.2f}", flush=True)
    return model.eval(), tokenizer


def setting(kind: str, seed: int, rows: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Pool, deciding rows (or target) and test rows."""
    draw = np.random.default_rng([seed, KINDS.index(kind)])
    shuffled = {name: [some[i] for i in draw.permutation(len(some))] for name, some in rows.items()}
    names = list(shuffled)
    used = ["general"] if kind == "plain" else names  # the others have too few short rows
    wanted = [names[seed % len(names)]] if kind == "target" else used
    deciding = [shuffled[name].pop() for _ in range(DECIDING // len(wanted)) for name in wanted]
    test = [shuffled[name].pop() for _ in range(TEST // len(wanted)) for name in wanted]
    pool = [row for name in used for row in shuffled[name][: POOL // len(used)]]
    pool = [dict(pool[i]) for i in draw.permutation(len(pool))]
    if kind == "noise":
        for one, other in zip(range(0, len(pool) // 2, 2), range(1, len(pool) // 2, 2), strict=True):
            pool[one]["output"], pool[other]["output"] = pool[other]["output"], pool[one]["output"]
    if kind == "harm":
        words = " ".join(row["output"] for row in pool).split()
        for row in pool[: len(pool) // 3]:
            row["output"] = " ".join(draw.choice(words, 60))
    return {"pool": pool, "deciding": deciding, "test": test}


def measure(kind: str, budget: float, seed: int, rows: dict, model: Any, tokenizer: Any, folder: Path) -> dict:
    made = {name: Dataset.from_list(some) for name, some in setting(kind, seed, rows).items()}
    target = kind == "target"
    if target:
        made["deciding"].to_json(folder / "target.jsonl")
    args = DataSelectingConfig(
        str(folder / "run"),
        selection_method="auto",
        selection_budget=budget,
        selection_target=str(folder / "target.jsonl") if target else None,
        selection_cache_dir=str(folder / "cache"),
        selection_dtype="float32",
        num_train_epochs=EPOCHS,
        learning_rate=2e-3,
        per_device_train_batch_size=8,
        max_length=96,
        seed=seed,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    evaluated = None if target else made["deciding"]
    trainer = DataSelectingTrainer(
        copy.deepcopy(model), args, train_dataset=made["pool"], eval_dataset=evaluated, processing_class=tokenizer
    )
    entries, k = trainer.plan.trials.entries, round(budget * len(made["pool"]))
    ctx, records = trainer.context(), trainer.records
    usable, _ = trials.trainable(records, ctx)
    chosen = {entry.name: select(records, entry.load(), k, trainer.context()).indices for entry in entries}
    started = time.perf_counter()
    selection = trainer.select()
    seconds = time.perf_counter() - started
    chosen["auto"] = selection.indices
    truth = PlainTraining(model, ctx, records, Records(made["test"], name="eval_dataset"))
    tops = {name: truth(np.intersect1d(indices, usable), seed) for name, indices in chosen.items()}
    random = np.stack([truth(trials.drawn_subset(usable, k, seed + 1000, i), seed) for i in range(RANDOM)])
    known = np.isfinite([*random, *tops.values()]).all(0)
    found = {}
    for name, losses in tops.items():
        one = gain(random[:, known], losses[None, known], Part(0.0, 0))
        found[name] = [one.value, one.low, one.high]
    figures = selection.facts["figures"]
    return {
        "kind": kind,
        "budget": budget,
        "seed": seed,
        "chosen": figures["chosen"].partition(":")[0],
        "why": figures["chosen"],
        "trials": figures["trials"],
        "tried": figures["gain over random rows"],
        "gains": found,
        "random": float(random[:, known].mean()),
        "seconds": seconds,
    }


def report(lines: list[dict]) -> None:
    print("| pool | budget | seed | auto keeps | its gain, nats | best method | its gain |")
    print("|---|---|---|---|---|---|---|")
    worse, gains, best_gains = [], [], []
    for line in lines:
        single = {name: value[0] for name, value in line["gains"].items() if name != "auto"}
        best, (value, low, high) = max(single, key=single.get), line["gains"]["auto"]
        gains.append(value)
        best_gains.append(max(0.0, single[best]))
        worse.append(high < 0)
        print(
            f"| {line['kind']} | {line['budget']} | {line['seed']} | {line['chosen']} | {value:.3f} "
            f"[{low:.3f}, {high:.3f}] | {best} | {single[best]:.3f} |"
        )
    print(
        f"\n{len(lines)} settings: `auto` is worse than random beyond the interval in {sum(worse)} "
        f"({np.mean(worse):.0%}); it keeps what a method chose in {sum(line['chosen'] != 'random' for line in lines)}."
    )
    print(f"Its gains are {sum(gains) / max(sum(best_gains), 1e-9):.0%} of those of the best method of each setting.")
    names = sorted({name for line in lines for name in line["gains"]} - {"auto"})
    fixed = {name: np.mean([line["gains"].get(name, [0.0])[0] for line in lines]) for name in names}
    print("Mean gain: " + ", ".join(f"{n} {v:.3f}" for n, v in [("auto", np.mean(gains)), *fixed.items()]))
    for kind in KINDS:
        of = [i for i, line in enumerate(lines) if line["kind"] == kind]
        if of and sum(best_gains[i] for i in of):
            print(f"{kind}: {sum(gains[i] for i in of) / sum(best_gains[i] for i in of):.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.05, 0.1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--times", type=float, default=1.0, help="auto_budget, in trainings on the whole pool")
    parser.add_argument("--steps", type=int, default=200, help="of training the model")
    parser.add_argument("--results", type=Path, help="JSON lines")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    disable_progress_bars()
    logging.set_verbosity_error()
    trials.Trials, CountedTrials.times = CountedTrials, options.times
    draw = np.random.default_rng(0)
    seen, others = [], {}
    for name, rows in sources(options.data).items():
        if name == "stories":  # too few
            continue
        short = [row for row in rows if sum(map(len, row.values())) <= 240]
        short = [short[i] for i in draw.permutation(len(short))]
        others[name], seen = short[: len(short) * 2 // 3], seen + short[len(short) * 2 // 3 :]
    model, tokenizer = pretrained(seen, options.steps)
    CountedTrials.model = model
    done = (
        [json.loads(line) for line in options.results.open(encoding="utf-8")]
        if options.results and options.results.exists()
        else []
    )
    for seed in options.seeds:
        for kind in options.kinds:
            for budget in options.budgets:
                if any((d["kind"], d["budget"], d["seed"]) == (kind, budget, seed) for d in done):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    done.append(measure(kind, budget, seed, others, model, tokenizer, Path(folder)))
                print(json.dumps(done[-1]), flush=True)
                if options.results:
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(done[-1]) + "\n")
    report(done)


if __name__ == "__main__":
    main()
