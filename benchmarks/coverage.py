"""
Seconds and memory of the engines under the methods that cover a pool or match a target, each in a process of its own.

    python benchmarks/coverage.py [--rows 100000] [--width 384] [--engines mig tsds qdit car] [--kind random]

Vectors are float32, drawn (`random`) or in bundles around random centres (`crowd`, see subset.py); labels and
qualities are drawn. Prints seconds, those of the CPU, and the resident memory at its peak above what it was when the
inputs stood.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np
from scipy.sparse import csr_array
from subset import crowd, measured

from hf_dataselect.engines.subset.choose import cosine, facility_location
from hf_dataselect.engines.subset.tag_coverage import concave_cover, propagated, similar_labels
from hf_dataselect.engines.subset.transport import densities, nearest_rows, transport_probabilities
from hf_dataselect.selectors.car import CaR


def vectors(options: argparse.Namespace) -> np.ndarray:
    if options.kind == "crowd":
        return crowd(options.rows, options.width)
    return np.random.default_rng(0).normal(size=(options.rows, options.width)).astype(np.float32)


def mig(options: argparse.Namespace):
    """Labels as frequent as words are, five a row at most; their vectors of the width asked for."""
    draw, labels = np.random.default_rng(0), max(20, options.rows // 15)
    sizes = draw.integers(1, 6, options.rows)
    columns = np.minimum(draw.zipf(1.3, sizes.sum()) - 1, labels - 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    has = csr_array((np.ones(len(columns)), columns, starts), shape=(options.rows, labels))
    weights = csr_array(has.multiply(draw.uniform(1, 36, options.rows)[:, None]))
    near = crowd(labels, options.width)

    def run():
        _, updates = concave_cover(propagated(weights, similar_labels(near, 0.9)), options.picks)
        return f"{labels:,} labels, all gains computed {updates} times"

    return run


def tsds(options: argparse.Namespace):
    """100 target rows, near to some candidates."""
    rows, draw = vectors(options), np.random.default_rng(1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    target = rows[draw.choice(len(rows), 100, replace=False)] + 0.02 * draw.normal(size=(100, rows.shape[1]))
    usable, ties, reach = np.ones(len(rows), bool), np.arange(len(rows)), min(5000, len(rows) // 10)

    def run():
        near, distances = nearest_rows(rows, usable, target, reach, ties)
        reached, place = np.unique(near, return_inverse=True)
        density = densities(rows[reached], 0.75, 1000)[place.reshape(near.shape)]
        found = transport_probabilities(near, distances, density, 0.6, 5.0, len(rows))
        return f"densities of {len(reached):,} rows, {(found > 0).sum():,} have a probability"

    return run


def qdit(options: argparse.Namespace):
    """Facility location with qualities between 0 and 1, as the method weighs them with `alpha` 0.7."""
    rows, n = vectors(options).astype(np.float64), options.rows
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    worth = 0.7 / 0.3 * n * np.random.default_rng(1).random(n)

    def run():
        _, gains = facility_location(rows, options.picks, cosine, worth=worth)
        return f"gains from {gains[0]:,.0f} to {gains[-1]:,.0f}"

    return run


def car(options: argparse.Namespace):
    """Clusters of the principal components."""
    rows = vectors(options)

    def run():
        return f"{len(np.unique(CaR('length', encoder='model')._clusters(rows, 42)))} clusters"

    return run


ENGINES = {"mig": mig, "tsds": tsds, "qdit": qdit, "car": car}


def once(name: str, options: argparse.Namespace) -> None:
    run, before = ENGINES[name](options), time.process_time()
    said, seconds, memory = measured(run)
    cpu = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name}: {options.rows:,} x {options.width}, {options.picks:,} picks: {seconds:.1f} s (CPU {cpu:.1f} s), "
        f"+{memory / 2**20:,.0f} MB (the process: {peak:,.0f} MB); {said}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--picks", type=int, default=5000)
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--kind", default="random", choices=["random", "crowd"])
    options = parser.parse_args()
    for name in options.engines:
        started = multiprocessing.get_context("spawn").Process(target=once, args=(name, options))
        started.start()
        started.join()
        if started.exitcode:
            raise SystemExit(f"{name} ended with {started.exitcode}")


if __name__ == "__main__":
    main()
