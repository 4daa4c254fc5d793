"""Which contexts share which table: by bytes, in time linear in the number of contexts.

Lloyd's steps under the Kullback-Leibler distance spread all contexts of all tensors over at most MAX_TABLES tables;
then tables are merged, the pair that saves most first, as long as a merge saves bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Histograms = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
MAX_TABLES = 64
"""Tables per alphabet before merging."""
LLOYD_STEPS = 8
TABLE_BYTES = 6
"""What a table costs beside its entries: its length, and longer numbers in the maps of contexts."""
ENTRY_BYTES = 0.6
"""What an entry of a table costs, deflated."""
FLOOR = 1e-3
"""Weight of the common histogram in every table's, so that no context finds a table impossible."""


def choose_tables(histograms: Histograms) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.intp]]:
    """Share contexts out over tables.

    Args:
        histograms: counts `(num_contexts, num_symbols)`; a context without any takes the first table.

    Returns:
        The summed histogram of each table, and the table of each context `(num_contexts,)`.
    """
    used = np.flatnonzero(histograms.any(axis=1))
    if not len(used):
        return [], np.zeros(len(histograms), np.intp)
    counts = histograms[used]
    assigned = _merge(counts, _lloyd(counts))
    tables = _sums(counts, assigned, int(assigned.max()) + 1)
    found = np.zeros(len(histograms), dtype=np.intp)
    found[used] = assigned
    return [table.astype(np.int64) for table in tables], found


def code_bits(histograms: npt.NDArray[Any]) -> Doubles:
    """Bits that each row's symbols take under their own distribution."""
    counts = histograms.astype(np.float64)
    totals = counts.sum(axis=-1)
    return np.asarray(_plogp(totals) - _plogp(counts).sum(axis=-1))


def _plogp(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(counts * np.log2(np.maximum(counts, 1)))


def _lloyd(counts: Histograms) -> npt.NDArray[np.intp]:
    num_tables = min(MAX_TABLES, len(counts))
    common = counts.sum(axis=0, dtype=np.float64)
    centres = counts[np.argsort(-counts.sum(axis=1), kind="stable")[:num_tables]].astype(np.float64)
    assigned = np.zeros(len(counts), dtype=np.intp)
    for _ in range(LLOYD_STEPS):
        smooth = centres + FLOOR * common / common.sum() * np.maximum(centres.sum(axis=1, keepdims=True), 1) + 1e-30
        costs = counts @ -np.log2(smooth / smooth.sum(axis=1, keepdims=True)).T.astype(np.float32)
        nearest = costs.argmin(axis=1)
        if np.array_equal(nearest, assigned):
            break
        assigned = nearest
        centres = _sums(counts, assigned, num_tables)
    return np.unique(assigned, return_inverse=True)[1]


def _sums(counts: Histograms, assigned: npt.NDArray[np.intp], num_tables: int) -> npt.NDArray[np.float64]:
    order = np.argsort(assigned, kind="stable")
    starts = np.searchsorted(assigned[order], np.arange(num_tables))
    sums = np.add.reduceat(counts[order].astype(np.float64), np.minimum(starts, len(counts) - 1), axis=0)
    empty = np.bincount(assigned, minlength=num_tables) == 0
    sums[empty] = 0
    return np.asarray(sums)


def _merge(counts: Histograms, assigned: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Merge tables while that saves bytes."""
    sums = _sums(counts, assigned, int(assigned.max()) + 1)
    own = code_bits(sums)
    saved = np.array([_saved(sums, own, row) for row in range(len(sums))]).reshape(len(sums), len(sums))
    into = np.arange(len(sums))
    while len(sums) > 1:
        kept, gone = sorted(divmod(int(saved.argmax()), len(sums)))
        if saved[kept, gone] <= 0:
            break
        sums[kept] += sums[gone]
        sums[gone] = 0
        own[kept] = code_bits(sums[kept])
        into[into == gone] = kept
        saved[gone] = saved[:, gone] = -np.inf
        alive = np.isfinite(saved[kept]) | (np.arange(len(sums)) == kept)
        row = np.where(alive, _saved(sums, own, kept), -np.inf)
        row[kept] = -np.inf
        saved[kept] = saved[:, kept] = row
    return np.unique(into[assigned], return_inverse=True)[1]


def _saved(sums: npt.NDArray[np.float64], own: npt.NDArray[np.float64], row: int) -> npt.NDArray[np.float64]:
    """Bytes saved by merging one table with each other; minus infinity with itself."""
    joined = sums + sums[row]
    entries = ((sums > 0) & (sums[row] > 0)).sum(axis=1)
    found = TABLE_BYTES + ENTRY_BYTES * entries - (code_bits(joined) - own - own[row]) / 8
    found[row] = -np.inf
    return np.asarray(found)
