"""Facility location of many rows, each represented by one of its nearest rows only; these come from a vector index."""

import heapq

import numpy as np
from scipy.sparse import csr_array

from ..store.vector_store import StoredVectors, blocks


#: Rows up to which all pairs are compared. Of more, the index looks into the nearest cells of a k-means only.
ALL_PAIRS = 50_000
#: Cells that the search for a row looks into, and rows that a cell's centre is fitted to.
CELLS, FITTED = 16, 64


def nearest_graph(vectors: np.ndarray | StoredVectors, neighbours: int) -> csr_array:
    """
    Cosines, at least 0, of each row with its nearest rows, itself among them: exact up to `ALL_PAIRS` rows; of more,
    an inverted-file index of faiss may miss some of them.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`, finite and not 0, of any length; read in blocks. The index holds them once more, float32.
        neighbours (`int`):
            Nearest rows of each.

    Returns:
        `csr_array`: float32 `(n, n)`, `neighbours` entries a row at most.
    """
    import faiss

    n, width = vectors.shape
    count = min(neighbours, n)
    index = faiss.IndexFlatIP(width)
    if n > ALL_PAIRS:
        cells = int(4 * np.sqrt(n))
        index = faiss.IndexIVFFlat(index, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe, index.cp.niter = CELLS, 10
        sample = np.random.default_rng(0).choice(n, min(n, FITTED * cells), replace=False)
        index.train(_unit(vectors[np.sort(sample)]))
    for part in blocks((n, width)):
        index.add(_unit(vectors[part]))
    columns, values = np.empty((n, count), np.int32), np.empty((n, count), np.float32)
    for part in blocks((n, width)):
        near, rows = index.search(_unit(vectors[part]), count)
        own = np.arange(n)[part]
        missing = ~(rows == own[:, None]).any(1)  # more copies of it than neighbours
        rows[missing, -1], near[missing, -1] = own[missing], 1
        near[rows < 0], rows[rows < 0] = 0, 0  # the cells hold fewer rows
        columns[part], values[part] = rows, np.maximum(near, 0)
    graph = csr_array((values.reshape(-1), columns.reshape(-1), np.arange(n + 1) * count), shape=(n, n))
    graph.eliminate_zeros()
    return graph


def represented(graph: csr_array, k: int, worth: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """
    Greedy facility location where a row is represented by its neighbours of a graph only: maximises the sum over rows
    of the largest similarity to a selected one, and of what selected rows are worth by themselves.

    Args:
        graph (`csr_array`):
            Similarities from 0, float32 `(n, n)`: a line holds the rows that may represent one.
        k (`int`):
            Rows to select; at most all rows.
        worth (`np.ndarray` or `float`, *optional*, defaults to `0.0`):
            Added to the gain of each row `(n,)`.

    Returns:
        `tuple`: rows in the order of selection, int64 `(k,)`, and the gain of each, float64 `(k,)`.
    """
    n = graph.shape[0]
    columns, worth = graph.tocsc(), np.broadcast_to(np.asarray(worth, np.float64), n)
    starts, covered = columns.indptr.tolist(), np.zeros(n, np.float32)
    # Gains never grow: one that is still the highest when computed anew is that of the next row.
    queue = [(-gain, row) for row, gain in enumerate((columns.sum(0, dtype=np.float64) + worth).tolist())]
    heapq.heapify(queue)
    chosen, gains = [], []
    while len(chosen) < min(k, n):
        row = heapq.heappop(queue)[1]
        its = slice(starts[row], starts[row + 1])
        served, similarity = columns.indices[its], columns.data[its]
        gain = float(np.maximum(similarity - covered[served], 0).sum(dtype=np.float64) + worth[row])
        if queue and (-gain, row) > queue[0]:
            heapq.heappush(queue, (-gain, row))
            continue
        chosen.append(row)
        gains.append(gain)
        covered[served] = np.maximum(covered[served], similarity)
    return np.array(chosen, np.int64), np.array(gains)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
