"""Gradient features of rows (LESS, arXiv 2402.04333): projected gradients of a temporarily fine-tuned model."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from ..context import Context
from ..data.encoded import Encoded
from ..engines.gradients.adam import AdamFeature, AdamState
from ..engines.gradients.collect import Gradients, check_room_for_gradients, gradients, reduced_gradients
from ..engines.gradients.layers import left_out, linear_layers, lora_layers
from ..engines.gradients.projection import Projection
from ..engines.gradients.projection_error import PILOT, ProjectionError, narrowest
from ..engines.gradients.subspace import Subspace, check_memory
from ..engines.gradients.whole import why_whole
from ..engines.store.vector_store import StoredVectors
from ..engines.subset.target_similarity import Target, error_of_scores, highest
from ..engines.tuning.warm_up import WarmupSettings, warmed_up_by_epoch
from ..errors import SelectionError
from .hidden_states import note_unusable
from .target_rows import refuse_without_target


logger = logging.getLogger(__name__)

#: Rows from which the error of the projection is estimated.
SAMPLE = 64
#: Part of a gradient's length that is rounding, of which a direction says nothing.
NOTHING = 1e-5


@dataclass(frozen=True)
class GradientFeatures:
    """
    Gradient features at one checkpoint of a model.

    Args:
        rows, examples ([`Encoded`]):
            Token rows of candidates and of target-task examples.
        ctx ([`Context`]):
            The context with the tuned model, whose weights are those of the checkpoint.
        adam ([`AdamState`]):
            The optimizer's moments.
        weight (`float`):
            Mean learning rate of the epoch, divided by the sum over all epochs.
        options (`dict`):
            Layers and projection, for [`gradients`].
        place (`str`):
            The checkpoint's number, for labels of progress bars.
        error ([`ProjectionError`], *optional*):
            The error of the similarities, to which each checkpoint adds; `None` for whole gradients.
        rounded (`list`, *optional*):
            Where vectors are of few bits, each checkpoint adds the similarities of a sample, weighted, `(s, groups)`:
            those of 16 bits and those of few.
    """

    rows: Encoded
    examples: Encoded
    ctx: Context
    adam: AdamState
    weight: float
    options: dict[str, Any]
    place: str
    error: ProjectionError | None = None
    rounded: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def of_examples(self) -> np.ndarray | StoredVectors:
        """
        Gradients of the target-task examples, unit vectors `(m, width)`; NaN for unusable ones.

        Raises:
            [`SelectionError`]: no example is usable.
        """
        return self._gradients_of_examples().vectors

    def _gradients_of_examples(self) -> Gradients:
        label = f"Target gradients {self.place}"
        runtime = self.ctx.whole.runtime
        features = gradients(self.ctx.model, self.examples.tokens, runtime, label=label, **self._exact)
        refuse_without_target(np.isfinite(features.norm), self.examples, self.ctx)
        return features

    @property
    def _exact(self) -> dict[str, Any]:
        """The options at 16 bits: the few examples and the sample are not rounded."""
        return self.options | {"project": replace(self.options["project"], bits=16)}

    def _of_sample(self, momentum: bool) -> np.ndarray:
        """Unit vectors of the sample's Adam updates, `(s, width)`."""
        rows, adam = self.rows.tokens.select(self._sample()), AdamFeature(self.adam, momentum)
        label = f"Gradients of a sample {self.place}"
        runtime = self.ctx.whole.runtime
        return gradients(self.ctx.model, rows, runtime, adam=adam, label=label, **self._exact).vectors[:]

    def choose_width(self, groups: np.ndarray, momentum: bool, compete: bool) -> tuple[int, float]:
        """
        The smallest width of a projection that keeps the ranking of a sample, and the rank correlation with scores
        without a projection to expect of it, see [`~projection_error.narrowest`]. The options are the pilot's.
        """
        target, vectors, error = Target(self.of_examples(), groups, "mean"), self._of_sample(momentum), self.error
        error.add(1.0, vectors, target.vectors)
        similarity = target.similarity(vectors)
        scores = highest(similarity)
        errors = error_of_scores(similarity, error.of_groups(compete))[np.isfinite(scores)]
        return narrowest(float(np.nanstd(scores)), float(np.sqrt(np.square(errors).mean())))

    def similarity(self, target: Target, momentum: bool = True) -> np.ndarray:
        """
        Similarities of each candidate's Adam update; unusable rows are NaN and entered in `ctx.account`.

        Args:
            target ([`Target`]):
                Groups of vectors of the examples.
            momentum (`bool`, *optional*, defaults to `True`):
                See [`AdamFeature`].

        Returns:
            `np.ndarray`: `(n, groups)`.
        """
        ctx, adam = self.ctx, AdamFeature(self.adam, momentum)
        options = {"adam": adam, "label": f"Gradients {self.place}", **self.options}
        few = self.options["project"].bits < 16
        keep = self._sample() if few or self.error is not None else ()
        features = reduced_gradients(ctx.model, self.rows.tokens, ctx.runtime, target.similarity, keep, **options)
        if self.error is not None:
            self.error.add(self.weight, features.kept, target.vectors)
        if few:
            sides = self._of_sample(momentum), features.kept
            self.rounded.append(tuple(self.weight * target.similarity(side) for side in sides))
        self._note(features.fits, features.norm)
        return features.reduced

    def subspace(self, dim: int) -> Subspace:
        """
        The [`Subspace`] of at most `dim` directions that the gradients of the examples span.

        Raises:
            [`SelectionError`]: no example is usable, or all have the same direction.
        """
        examples = self._gradients_of_examples()
        subspace = Subspace(examples.vectors[:] * examples.norm[:, None].astype(np.float32), dim, self.ctx.agreed)
        if subspace.dim < 2:
            raise SelectionError(
                f"`selection_target`: the gradients of its {len(self.examples.tokens)} rows have one direction, in "
                "which rows can't be told apart. Give rows that differ."
            )
        return subspace

    def within(self, subspace: Subspace) -> tuple[np.ndarray, np.ndarray]:
        """
        Each candidate's gradient within the [`Subspace`], unit vectors `(n, dim)`, and the part of its length that
        lies there `(n,)`; unusable rows are NaN and entered in `ctx.account`.
        """
        options = self.options | {"label": f"Gradients {self.place}", "project": subspace}
        projected = gradients(self.ctx.model, self.rows.tokens, self.ctx.runtime, **options)
        captured = projected.norm / projected.whole
        outside = np.flatnonzero(captured < NOTHING)
        self._note(projected.fits, projected.norm)
        self.ctx.account.note("unscorable", "the gradient has no part along those of the target", outside)
        vectors = projected.vectors[:]
        vectors[outside] = captured[outside] = np.nan
        return vectors, captured

    def _note(self, fits: np.ndarray, norm: np.ndarray) -> None:
        """Enter unusable rows in `ctx.account`."""
        note_unusable(self.rows, self.ctx)
        self.ctx.account.note("unscorable", "did not fit in memory", np.flatnonzero(~fits))
        unusable = np.flatnonzero(fits & ~np.isfinite(norm) & ~self.rows.problematic)
        self.ctx.account.note("unscorable", "the gradient is zero or not finite", unusable)

    def _sample(self) -> np.ndarray:
        """Rows from which the error of the projection is estimated."""
        usable = np.flatnonzero(~self.rows.problematic)
        return np.sort(np.random.default_rng(self.ctx.seed).permutation(usable)[:SAMPLE])


def check_adapter(ctx: Context) -> None:
    """Raise [`SelectionError`], before tuning, for a user's adapter whose gradients can't be computed."""
    if hasattr(ctx.model, "peft_config"):
        lora_layers(ctx.model)


@contextmanager
def gradient_features(
    rows: Encoded,
    examples: Encoded,
    tuned_on: Sequence[int],
    ctx: Context,
    settings: WarmupSettings,
    project: Projection,
    optional: bool = False,
    subspace: int | None = None,
    width: Callable[[GradientFeatures], tuple[int, float]] | None = None,
) -> Iterator[Iterator[GradientFeatures]]:
    """
    The model temporarily fine-tuned on some rows, at the end of each epoch in turn, then restored.

    Args:
        rows, examples ([`Encoded`]):
            Token rows of candidates and of target-task examples.
        tuned_on (`Sequence[int]`):
            Candidates to fine-tune on.
        settings ([`WarmupSettings`]):
            Fine-tuning. Gradients are of the LoRA layers, or of `settings.layers` without an adapter.
        project ([`Projection`]):
            How gradients are projected.
        optional (`bool`, *optional*, defaults to `False`):
            Whether they are taken whole where they need no projection, see [`why_whole`].
        subspace (`int`, *optional*):
            Directions of the [`Subspace`] that candidates are projected to, for which examples are taken whole.
        width (`Callable`, *optional*):
            Chooses the width of the projection at the first checkpoint, see [`GradientFeatures.choose_width`];
            `project` is then that of the pilot.

    Raises:
        [`SelectionError`]: see [`warmed_up_by_epoch`] and [`gradients`]; or too little disk space for all vectors, or
            too little memory for the whole ones of examples.
    """

    def layers_of(model: nn.Module) -> dict[str, nn.Linear]:
        return linear_layers(model, settings.layers) if settings.layers else lora_layers(model)

    def chosen_for(layers: dict[str, nn.Linear]) -> tuple[Projection, str | None]:
        sides = rows.tokens, examples.tokens
        why = why_whole(project, layers, *sides, ctx.runtime, settings.epochs, identity) if optional else None
        return (replace(project, kind="none") if why else project), why

    def check_room(model: nn.Module) -> None:
        layers = layers_of(model)
        numbers, (chosen, _) = sum(layer.weight.numel() for layer in layers.values()), chosen_for(layers)
        if subspace is None:
            vectors = vectors_of_all
        else:
            vectors = settings.epochs * len(examples.tokens)
            check_memory(numbers, len(examples.tokens), subspace)
            of_rows = Projection(dim=subspace, dtype="float32")
            check_room_for_gradients(ctx.runtime, settings.epochs * len(rows.tokens), layers, of_rows)
        check_room_for_gradients(ctx.runtime, vectors, layers, chosen)

    vectors_of_all = settings.epochs * (len(rows.tokens) + len(examples.tokens))
    identity = ctx.runtime.identity(ctx.model)
    warm = rows.tokens.select(tuned_on)
    with warmed_up_by_epoch(ctx.model, ctx.tokenizer, warm, settings, ctx.runtime, check_room) as (model, epochs):
        # Mamba reads the weights of some layers without calling them: an adapter there never gets a gradient.
        known = set.intersection(*(set(epoch.adam.exp_avg) for epoch in epochs))
        layers = {name: layer for name, layer in layers_of(model).items() if f"{name}.weight" in known}
        if untouched := left_out(model, layers):
            logger.warning("%s trained weights are excluded from the gradients: %s.", len(untouched), untouched[:8])
        projection, why = chosen_for(layers)
        rates = sum(e.learning_rate for e in epochs)
        numbers = sum(layer.weight.numel() for layer in layers.values())

        def checkpoints() -> Iterator[GradientFeatures]:
            chosen, reason, error, rounded = projection, why, None, []
            for number, epoch in enumerate(epochs, 1):
                epoch.load()
                weight, place = epoch.learning_rate / rates, f"{number}/{len(epochs)}"
                given = rows, examples, ctx.using(model), epoch.adam, weight
                if number == 1 and width is not None and chosen.kind != "none":
                    pilot = {"layers": layers, "project": chosen}
                    dim, expected = ctx.agreed(width(GradientFeatures(*given, pilot, "pilot", ProjectionError(PILOT))))
                    if dim < numbers:
                        chosen = replace(chosen, dim=dim)
                    else:
                        chosen = replace(chosen, kind="none")
                        reason = f"their {numbers:,} numbers are no more than {dim:,}"
                    said = f"{dim:,}, with a rank correlation of {expected:.2f} to expect"
                    ctx.account.figures["width of the projection, chosen"] = said
                    check_room_for_gradients(ctx.runtime, vectors_of_all, layers, chosen)
                if number == 1 and subspace is None:
                    error = _note_projection(chosen, reason, numbers, ctx)
                options = {"layers": layers, "project": chosen}
                yield GradientFeatures(*given, options, place, error, rounded)

        yield checkpoints()


def _note_projection(project: Projection, why: str | None, numbers: int, ctx: Context) -> ProjectionError | None:
    """Enter whether gradients are projected, and begin an estimate of the error if so."""
    if project.kind == "none":
        ctx.account.figures["gradients are not projected"] = why or "`projection: none`"
        return None
    ctx.account.figures["gradients are projected"] = f"{numbers:,} numbers to {project.dim:,} ({project.kind})"
    return ProjectionError(project.dim)
