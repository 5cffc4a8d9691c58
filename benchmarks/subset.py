"""
Speed and memory of the subset engines, beside plain loops, in one run.

    python benchmarks/subset.py [--filter_rows 50000] [--rows 20000] [--picks 1000] [--width 384]

Vectors are drawn around random centres, so that the filter rejects about half of them. Prints seconds, the ratio and
the memory that the fast way took at its peak above what the vectors take. Plain ways:

- filter: the authors' loop: for each row, gather the kept rows, make all vectors unit ones, one product;
  and the same without the needless work: unit vectors once, kept rows in one array, one matrix-vector product a row;
- k-center: distances to all picked rows anew for each pick;
- facility location, of so many rows that similarities are computed as they are needed: all gains anew for each pick;
- facility location with a matrix of all similarities, `--matrix_rows` rows: 20 lines of lazy greedy on that matrix;
  and `apricot-select` and `submodlib-py`, where they are installed.

A plain loop's time a pick grows with the picks (k-center) or stays (facility location): it runs for `--plain_picks`
picks, and the fast way for as many beside it, so nothing is extrapolated. Both must choose the same rows.
"""

import argparse
import heapq
import importlib.util
import threading
import time

import numpy as np
import psutil

from hf_dataselect.engines.subset.choose import cosine, facility_location, k_center
from hf_dataselect.engines.subset.diverse_filter import diverse_filter


def crowd(n: int, width: int, seed: int = 0) -> np.ndarray:
    """Float32 `(n, width)` in bundles of random tightness and size."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(2, n // 3), width)).astype(np.float32)
    member = draw.integers(0, len(centres), n)
    spread = draw.uniform(0.2, 0.6, len(centres)).astype(np.float32)[member, None]
    return centres[member] + spread * draw.normal(size=(n, width)).astype(np.float32)


def authors_filter(order: np.ndarray, vectors: np.ndarray, threshold: float) -> list[int]:
    """One row at a time, all kept rows gathered and made unit vectors again each time."""
    kept = [int(order[0])]
    for row in order[1:]:
        near, this = vectors[kept], vectors[row : row + 1]
        near, this = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (near, this))
        if not (this @ near.T > threshold).any():
            kept.append(int(row))
    return kept


def plain_filter(order: np.ndarray, vectors: np.ndarray, threshold: float) -> list[int]:
    """One row at a time against the kept ones, which stand in one array of unit vectors."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near, kept = np.empty_like(unit), []
    for row in order:
        if not (near[: len(kept)] @ unit[row] > threshold).any():
            near[len(kept)] = unit[row]
            kept.append(int(row))
    return kept


def plain_k_center(vectors: np.ndarray, k: int) -> list[int]:
    """Distances to all picked rows anew for each pick."""
    picked, squares = [0], (vectors**2).sum(1)
    while len(picked) < k:
        squared = squares[:, None] + squares[picked][None] - 2 * vectors @ vectors[picked].T
        nearest = squared.min(1)
        nearest[picked] = -1
        picked.append(int(nearest.argmax()))
    return picked


def plain_facility_location(vectors: np.ndarray, k: int, block: int = 256) -> list[int]:
    """All gains anew for each pick, similarities computed as they are needed."""
    covered, picked = np.zeros(len(vectors)), []
    for _ in range(k):
        gains = np.concatenate(
            [
                np.maximum(cosine(vectors, vectors[start : start + block]) - covered[:, None], 0).sum(0)
                for start in range(0, len(vectors), block)
            ]
        )
        gains[picked] = -1
        picked.append(int(gains.argmax()))
        covered = np.maximum(covered, cosine(vectors, vectors[picked[-1:]])[:, 0])
    return picked


def plain_lazy_greedy(vectors: np.ndarray, k: int) -> list[int]:
    """All similarities in one matrix, rows in a heap by their last known gain."""
    near = cosine(vectors, vectors)
    heap = [(-gain, row) for row, gain in enumerate(near.sum(1))]
    heapq.heapify(heap)
    covered, picked = np.zeros(len(vectors)), []
    while len(picked) < k:
        row = heapq.heappop(heap)[1]
        gain = np.maximum(near[row] - covered, 0).sum()
        if not heap or (-gain, row) <= heap[0]:
            picked.append(row)
            covered = np.maximum(covered, near[row])
        else:
            heapq.heappush(heap, (-gain, row))
    return picked


def of_apricot(vectors: np.ndarray, k: int) -> list[int]:
    from apricot import FacilityLocationSelection

    chosen = FacilityLocationSelection(k, metric="precomputed", optimizer="lazy").fit(cosine(vectors, vectors))
    return chosen.ranking.tolist()


def of_submodlib(vectors: np.ndarray, k: int) -> list[int]:
    from submodlib import FacilityLocationFunction

    objective = FacilityLocationFunction(n=len(vectors), mode="dense", data=vectors, metric="cosine")
    return [row for row, _ in objective.maximize(budget=k, optimizer="LazyGreedy", show_progress=False)]


def covered_by(vectors: np.ndarray, rows: list[int]) -> float:
    """The sum over all vectors of the largest cosine to one of the rows."""
    return float(cosine(vectors, vectors[rows]).max(1).sum())


def with_matrix(vectors: np.ndarray, picks: int) -> None:
    """Facility location beside others that keep a matrix: CPU seconds, and what the picks cover."""
    unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    ways = {"lazy greedy": plain_lazy_greedy, "apricot": of_apricot, "submodlib": of_submodlib}
    began = time.process_time()
    rows = facility_location(unit, picks, cosine)[0].tolist()
    fast = time.process_time() - began
    print(f"facility location with a matrix, {vectors.shape}, {picks} picks: {fast:.2f} CPU s")
    for name, way in ways.items():
        if name in ("apricot", "submodlib") and importlib.util.find_spec(name) is None:
            print(f"  {name} is not installed")
            continue
        way(unit[:100], 5)  # compiles
        began = time.process_time()
        others = way(unit, picks)
        seconds = time.process_time() - began
        value = covered_by(unit, others) / covered_by(unit, rows)
        print(
            f"  {name}: {seconds:.2f} CPU s, {seconds / fast:.2f} x; same rows: {others == rows}; covers {value:.9f}"
        )


def measured(function, *arguments):
    """What it gives, its seconds, and its peak of memory above the start in bytes."""
    process, peak, done = psutil.Process(), [0], threading.Event()

    def used() -> int:
        now = process.memory_info()
        return now.rss - getattr(now, "shared", 0)  # without files that are mapped

    before = used()

    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], used() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        return function(*arguments), time.perf_counter() - started, peak[0]
    finally:
        done.set()
        watcher.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter_rows", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--picks", type=int, default=1000)
    parser.add_argument("--plain_picks", type=int, default=20)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--matrix_rows", type=int, default=8_000)
    parser.add_argument("--matrix_picks", type=int, default=800)
    parser.add_argument("--only_matrix", action="store_true", help="leave out all others")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--authors", action="store_true", help="also the authors' loop: many minutes at full size")
    options = parser.parse_args()
    with_matrix(crowd(options.matrix_rows, options.width, seed=3), options.matrix_picks)
    if options.only_matrix:
        return

    vectors = crowd(options.filter_rows, options.width)
    order = np.random.default_rng(1).permutation(len(vectors))
    rows, fast, memory = measured(lambda: diverse_filter(order, vectors, threshold=options.threshold))
    print(f"diverse filter, {vectors.shape}: keeps {len(rows)}; {fast:.2f} s, {memory / 1e6:.0f} MB above the vectors")
    for name, loop in [("plain loop", plain_filter), ("authors' loop", authors_filter)][: 1 + options.authors]:
        plain, seconds, _ = measured(loop, order, vectors, options.threshold)
        same = len(set(plain) & set(rows.tolist())) / len(rows)
        print(f"  {name}: {seconds:.1f} s, {seconds / fast:.1f} x; same rows: {plain == rows.tolist()} ({same:.5f})")

    vectors = crowd(options.rows, options.width, seed=2)
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    ways = [
        ("k-center", lambda k: k_center(vectors, k)[0], lambda k: plain_k_center(vectors, k)),
        (
            "facility location",
            lambda k: facility_location(unit, k, cosine)[0],
            lambda k: plain_facility_location(unit, k),
        ),
    ]
    for name, quick, plain in ways:
        _, seconds, memory = measured(quick, options.picks)
        print(f"{name}, {vectors.shape}, {options.picks} picks: {seconds:.2f} s, {memory / 1e6:.0f} MB")
        (found, fast, _), (expected, slow, _) = (measured(way, options.plain_picks) for way in (quick, plain))
        same = found.tolist() == expected
        print(
            f"  {options.plain_picks} picks: {fast:.2f} s, plain {slow:.2f} s, {slow / fast:.1f} x; same rows: {same}"
        )


if __name__ == "__main__":
    main()
