"""Remarks on how the runs of a [`Comparison`] were trained: alike but for their rows, or not."""

from collections.abc import Iterator

from ..comparison.comparison import Comparison


def trained_differently(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """
    Of which run (`""`: of all) it is said: what was equal instead of epochs, how many more updates the baseline got,
    and all other differences by name.
    """
    reference, groups = comparison.baseline, comparison.groups
    for equal in dict.fromkeys(run.equal for group in groups for run in group.runs if run.equal):
        what = "optimizer updates" if equal == "updates" else equal
        yield "", f"Trained for as many {what} as the baseline, not for as many epochs (`equal: {equal}`)."
    updates = reference and reference.trained("updates")
    fewer = [g for g in groups if reference and len(g.selection.indices) < len(reference.selection.indices)]
    factors = sorted(updates / its for group in fewer if updates and (its := group.trained("updates")))
    times = list(dict.fromkeys(f"{factor:.3g}" for factor in factors[:1] + factors[-1:]))
    if times and factors[-1] > 1.05:
        yield "", f"The baseline got {' to '.join(times)} times as many optimizer updates as the runs on fewer rows."
    for group in groups:
        control = next((other for other in groups if other.controls(group)), None)
        others: dict[str, list[str]] = {}
        for other, what in ((reference, "the baseline"), (control, "its control")):
            if other is not None and other is not group and (differing := group.differences(other)):
                others.setdefault(", ".join(differing), []).append(what)
        for differences, whats in others.items():
            yield group.name, f"differs from {' and '.join(whats)} not only in its rows: {differences}."
