"""
Seconds and memory of the engines under the methods that cover a pool or match a target, each in a process of its own,
beside plain loops where these can run.

    python benchmarks/coverage.py [--rows 10000 100000 1000000] [--width 384] [--engines filter mig] [--kind crowd]

Vectors are float32 in a file that is mapped, in bundles around random centres (`crowd`, see subset.py) or drawn
(`random`); labels and qualities are drawn. Prints the seconds of the CPU and those by the clock, and the memory at its
peak above that before, without the mapped file. The plain loops run up to `--plain_rows` rows:

- filter: one row at a time against the kept ones, which stand in one array; a twentieth of the rows is kept;
- k_center: one matrix-vector product a pick;
- facility (extra `faiss`): the exact engine; what the rows cover is compared, too;
- mig: all gains anew at each pick;
- tsds: one matrix of all distances between the rows that are reached.
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist
from subset import covered_by, crowd, measured, plain_filter

from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.subset.choose import cosine, facility_location, k_center
from hf_dataselect.engines.subset.clusters import principal_clusters
from hf_dataselect.engines.subset.diverse_filter import diverse_filter
from hf_dataselect.engines.subset.nearest_graph import nearest_graph, represented
from hf_dataselect.engines.subset.tag_coverage import concave_cover, propagated, similar_labels
from hf_dataselect.engines.subset.transport import densities, nearest_rows, transport_probabilities


def vectors(options: argparse.Namespace, folder: Path) -> np.ndarray:
    """Float32 `(rows, width)`, written in blocks to a file and mapped."""
    shape, step = (options.rows, options.width), 2**16
    path = folder / "vectors"
    written = np.memmap(path, np.float32, "w+", shape=shape)
    for number, first in enumerate(range(0, options.rows, step)):
        size = min(step, options.rows - first)
        if options.kind == "crowd":
            written[first : first + size] = crowd(size, options.width, seed=number)
        else:
            written[first : first + size] = np.random.default_rng(number).normal(size=(size, options.width))
    written.flush()
    return np.memmap(path, np.float32, "r", shape=shape)


def diverse(options: argparse.Namespace, rows: np.ndarray):
    order, k = np.random.default_rng(1).permutation(len(rows)), len(rows) // 20

    def run():
        kept = diverse_filter(order, rows, k)
        walked = int(np.flatnonzero(order == kept[-1])[0]) + 1
        return kept, f"{len(kept):,} of {walked:,} rows are kept"

    def plain(kept: np.ndarray) -> str:
        walked = order[: int(np.flatnonzero(order == kept[-1])[0]) + 1]
        return f"same rows: {plain_filter(walked, np.array(rows), 0.9) == kept.tolist()}"

    return run, plain


def centers(options: argparse.Namespace, rows: np.ndarray):
    def run():
        picked, radii = k_center(rows, options.picks)
        return picked, f"distances from {radii[0]:.1f} to {radii[-1]:.1f}"

    def plain(picked: np.ndarray) -> str:
        centered = rows - rows.mean(0)
        squares, nearest, chosen = (centered**2).sum(1), np.full(len(rows), np.inf), [0]
        while len(chosen) < options.picks:
            last = chosen[-1]
            np.minimum(nearest, squares - 2 * centered @ centered[last] + squares[last], out=nearest)
            nearest[last] = -1
            chosen.append(int(nearest.argmax()))
        return f"same rows: {np.mean(picked == chosen):.4f}"

    return run, plain


def facility(options: argparse.Namespace, rows: np.ndarray):
    """Facility location over `--neighbours` nearest rows of each."""

    def run():
        picked, _ = represented(nearest_graph(rows, options.neighbours), options.picks)
        return picked, f"{options.neighbours} neighbours"

    def plain(picked: np.ndarray) -> str:
        unit = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        exact, _ = facility_location(unit, options.picks, cosine)
        return f"covers {covered_by(unit, picked) / covered_by(unit, exact):.4f} of what the exact rows cover"

    return run, plain


def mig(options: argparse.Namespace, rows: np.ndarray):
    """Labels as frequent as words are, five a row at most; their vectors of the width asked for."""
    draw, labels = np.random.default_rng(0), max(20, options.rows // 15)
    sizes = draw.integers(1, 6, options.rows)
    columns = np.minimum(draw.zipf(1.3, sizes.sum()) - 1, labels - 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    has = csr_array((np.ones(len(columns)), columns, starts), shape=(options.rows, labels))
    weights = csr_array(has.multiply(draw.uniform(1, 36, options.rows)[:, None]))
    near = crowd(labels, options.width)

    def run():
        picked, updates = concave_cover(propagated(weights, similar_labels(near, 0.9)), options.picks)
        return picked, f"{labels:,} labels, all gains computed {updates} times"

    def plain(picked: np.ndarray) -> str:
        spread, chosen = propagated(weights, similar_labels(near, 0.9)), []
        covered = np.zeros(labels)
        while len(chosen) < options.picks:
            gains = spread @ (0.8 * (covered + 1e-6) ** -0.2)
            gains[chosen] = -1
            chosen.append(int(gains.argmax()))
            covered += spread[[chosen[-1]]].toarray()[0]
        return f"same rows: {chosen == picked.tolist()}"

    return run, plain


def tsds(options: argparse.Namespace, rows: np.ndarray):
    """`--targets` target rows, near to some candidates."""
    draw = np.random.default_rng(1)
    target = np.array(rows[np.sort(draw.choice(len(rows), options.targets, replace=False))])
    target += 0.3 * draw.normal(size=target.shape).astype(np.float32)
    usable, ties, reach = np.ones(len(rows), bool), np.arange(len(rows)), min(5000, len(rows) // 10)
    width, around = 0.75 * float(np.linalg.norm(rows[:1000], axis=1).mean()), min(1000, len(rows) // 10)

    def run():
        near, distances = nearest_rows(rows, usable, target, reach, ties)
        reached, place = np.unique(near, return_inverse=True)
        density = densities(rows[reached], width, around)[place.reshape(near.shape)]
        probability = transport_probabilities(near, distances, density, 0.6, 5.0, len(rows))
        return density, f"densities of {len(reached):,} rows, {(probability > 0).sum():,} have a probability"

    def plain(density: np.ndarray) -> str:
        distances = cdist(target, rows)
        near = np.argsort(distances, axis=1, kind="stable")[:, :reach]
        reached, place = np.unique(near, return_inverse=True)
        kernel = np.maximum(1 - cdist(rows[reached], rows[reached], "sqeuclidean") / width**2, 0)
        own = -np.sort(-kernel, axis=1)[:, :around].sum(1)[place.reshape(near.shape)]
        return f"densities differ by {np.abs(own / density - 1).max():.0e} at most"

    return run, plain


def qdit(options: argparse.Namespace, rows: np.ndarray):
    """Exact facility location with qualities between 0 and 1, as the method weighs them with `alpha` 0.7."""
    unit, n = rows.astype(np.float64), options.rows
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    worth = 0.7 / 0.3 * n * np.random.default_rng(1).random(n)

    def run():
        picked, gains = facility_location(unit, options.picks, cosine, worth=worth)
        return picked, f"gains from {gains[0]:,.0f} to {gains[-1]:,.0f}"

    return run, None


def car(options: argparse.Namespace, rows: np.ndarray):
    """As many clusters of the principal components as the method takes, or `--clusters`."""
    wanted = options.clusters or int(np.sqrt(options.rows / 2))

    def run():
        with tempfile.TemporaryDirectory() as folder:
            clusters = principal_clusters(rows, wanted, 0.95, 42, Runtime(cache_dir=Path(folder)))
        return clusters, f"{len(np.unique(clusters))} clusters"

    return run, None


ENGINES = {"filter": diverse, "k_center": centers, "facility": facility, "mig": mig, "tsds": tsds}
#: Those that are not meant for a million rows.
SMALL = {"qdit": qdit, "car": car}


def once(name: str, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run, plain = (ENGINES | SMALL)[name](options, vectors(options, Path(folder)))
        before = time.process_time()
        (result, said), seconds, memory = measured(run)
        cpu = time.process_time() - before
        sizes = f"{options.rows:,} x {options.width}, {options.picks:,} picks"
        spent = f"CPU {cpu:.1f} s, clock {seconds:.1f} s, +{memory / 2**20:,.0f} MB"
        print(f"{name}: {sizes}: {spent}; {said}", flush=True)
        if plain is not None and options.rows <= options.plain_rows:
            before = time.process_time()
            said = plain(result)
            slow = time.process_time() - before
            print(f"  plain: CPU {slow:.1f} s, {slow / cpu:.1f} x; {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--picks", type=int, default=1000)
    parser.add_argument("--neighbours", type=int, default=64)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--plain_rows", type=int, default=10_000)
    parser.add_argument("--clusters", type=int)
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=[*ENGINES, *SMALL])
    parser.add_argument("--kind", default="crowd", choices=["random", "crowd"])
    options = parser.parse_args()
    for rows in options.rows:
        for name in options.engines:
            given = argparse.Namespace(**{**vars(options), "rows": rows})
            started = multiprocessing.get_context("spawn").Process(target=once, args=(name, given))
            started.start()
            started.join()
            if started.exitcode:
                raise SystemExit(f"{name} ended with {started.exitcode}")


if __name__ == "__main__":
    main()
