"""Minimum cut as a choice of zeros and ones: the exact minimum of a sum of terms over single and pairs of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

# scipy's flows are int32: an edge's capacity and the flow against it must stay below 2^31 together.
_UNCUT = 2**30
_RANGE = 2**29


def assign(gains: Floats, tails: Ints, heads: Ints, costs: Floats) -> Flags:
    """The x of 0 and 1 with the least sum of gains[i] x[i] and of costs[k] where x[tails[k]] = 0, x[heads[k]] = 1.

    Gains may be negative, costs may not; an infinite cost forbids, and tail -1 is a constant 0. Of equal minima the one
    with the fewest ones. Exact when gains and costs are whole multiples of one power of two and the smaller of the sums
    of positive terms out of the constant and of negative gains is below 2^29 of it; else each number is rounded up
    to a multiple of about 2^-29 of that sum.
    """
    n = gains.size
    source, sink = n, n + 1
    plus, minus = np.flatnonzero(gains > 0), np.flatnonzero(gains < 0)
    rows = np.concatenate([np.where(tails < 0, source, tails), np.full(plus.size, source), minus])
    cols = np.concatenate([heads, plus, np.full(minus.size, sink)])
    sizes = np.concatenate([costs, gains[plus], -gains[minus]])
    bound = min(sizes[rows == source].sum(), sizes[cols == sink].sum())
    capacities = np.minimum(np.ceil(sizes * _scale(bound)), _UNCUT).astype(np.int64)
    graph = csr_array(coo_array((capacities, (rows, cols)), shape=(n + 2, n + 2)))  # the sum where edges coincide
    graph.data = np.minimum(graph.data, _UNCUT).astype(np.int32)
    left = graph - maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    ones = np.zeros(n + 2, np.bool_)
    ones[breadth_first_order(csr_array(left.T), sink, return_predecessors=False)] = True
    return ones[:n]


def _scale(bound: float) -> float:
    """A power of two, so that scaling itself rounds nothing."""
    return float(2.0 ** np.floor(np.log2(_RANGE / bound))) if bound > 0 else 1.0
