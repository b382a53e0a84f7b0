"""The cheapest way to spread a graph of operators over tiers: exact, any number of live tensors at a cut. Pure.

Each node gets a label, its tier; labels never fall along an edge, so the graph has one layer of zeros and ones for
each boundary, "does this node lie beyond it?", and the cheapest labels are one minimum cut through all layers
(Ishikawa 2003; for two machines DADS, Hu et al. 2019, which made a search of Neurosurgeon's chains). Unlike in DADS, a
tensor with several consumers has one variable of its own in each layer, "does it cross?", and is paid once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from math import inf, isfinite
from typing import Literal, TypeAlias

import numpy as np

from splitbus_gateway.graph.flow import Floats, Ints, assign

Goal: TypeAlias = Literal["inside", "home", "end"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """What one node (None: the first tier's input) gives to others; infinite bytes: it cannot cross any boundary.

    `goal`: whether nothing but consumers wants it (inside), or the first tier wants it back (home), or the last tier
    of the route has to have it (end).
    """

    nbytes: float
    producer: int | None
    consumers: tuple[int, ...] = ()
    goal: Goal = "inside"


@dataclass(frozen=True)
class Dag:
    """Nodes 0 to n - 1, each with its time on each tier (ms), and the tensors between them.

    Raises ValueError for a time that is not finite, negative bytes, a goal that infinite bytes cannot reach, or a node
    that is not there.
    """

    ms: tuple[tuple[float, ...], ...]
    tensors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        nodes = range(len(self.ms))
        if len({len(times) for times in self.ms}) > 1 or not all(isfinite(t) for times in self.ms for t in times):
            raise ValueError("every node needs a finite time on every tier")
        for tensor in self.tensors:
            ends = tensor.consumers if tensor.producer is None else (tensor.producer, *tensor.consumers)
            if not tensor.nbytes >= 0 or (tensor.nbytes == inf and tensor.goal != "inside"):
                raise ValueError(f"{tensor} cannot have {tensor.nbytes} bytes")
            if any(node not in nodes for node in ends):
                raise ValueError(f"{tensor} names a node that is not there: there are {len(nodes)}")

    @cached_property
    def wires(self) -> _Wires:
        """The terms of one layer."""
        return _wires(self)


@dataclass(frozen=True, slots=True)
class Hop:
    """What it costs to carry tensors from a tier to a later one, and answers home; `fixed_ms` if it is used at all."""

    ms_per_byte: float
    fixed_ms: float = 0.0
    home_ms_per_byte: float = 0.0


Hops: TypeAlias = Mapping[tuple[int, int], Hop]


@dataclass(frozen=True)
class Partition:
    """Nodes spread over the tiers of `route`; `before[k]` are the nodes before its boundary k, each within the next."""

    route: tuple[int, ...]
    before: tuple[frozenset[int], ...]
    ms: float


@dataclass(frozen=True, eq=False)
class _Wires:
    """Pairs (tail, head) of a layer's variables: the nodes, then one for each tensor with several consumers."""

    tails: Ints
    heads: Ints
    nbytes: Floats
    variables: int


def best_partition(dag: Dag, hops: Hops) -> Partition:
    """The cheapest over all routes that `hops` allow: tier 0 alone, and every rising row of tiers joined by hops."""
    last = max((tier for pair in hops for tier in pair), default=0)
    routes = (
        (0, *rest) for size in range(last + 1) for rest in combinations(range(1, last + 1), size)
    )  # fewer boundaries first: they win ties
    found = (partition(dag, route, hops) for route in routes if all(pair in hops for pair in pairwise(route)))
    return min(found, key=lambda candidate: candidate.ms)


def partition(dag: Dag, route: Sequence[int], hops: Hops) -> Partition:
    """The cheapest that pays for all hops of `route`, whether it uses them or not; ties stay on the earlier tier."""
    wires, nodes, layers = dag.wires, len(dag.ms), len(route) - 1
    ms = np.array(dag.ms, np.float64).reshape(nodes, max(map(len, dag.ms), default=1 + route[-1]))
    gains = np.zeros((layers, wires.variables))
    tails, heads, costs = [], [], []
    for layer, pair in enumerate(pairwise(route)):
        shift = layer * wires.variables
        gains[layer, :nodes] = ms[:, pair[1]] - ms[:, pair[0]] + _goals(dag, hops[pair])
        tails.append(np.where(wires.tails < 0, -1, wires.tails + shift))
        heads.append(wires.heads + shift)
        costs.append(_scaled(wires.nbytes, hops[pair].ms_per_byte))
        if layer:  # a node beyond this boundary is beyond the one before
            tails.append(np.arange(shift - wires.variables, shift - wires.variables + nodes))
            heads.append(np.arange(shift, shift + nodes))
            costs.append(np.full(nodes, inf))
    beyond = assign(gains.ravel(), *map(np.concatenate, (tails, heads, costs))) if layers else np.zeros(0, np.bool_)
    sets = tuple(frozenset(np.flatnonzero(~row[:nodes]).tolist()) for row in beyond.reshape(layers, wires.variables))
    return Partition(tuple(route), sets, price(dag, route, sets, hops))


def price(dag: Dag, route: Sequence[int], before: Sequence[frozenset[int]], hops: Hops) -> float:
    """The sum of times, fixed costs and bytes for the cuts `before`, in ms; infinite when it cannot be."""
    stages = [sum(node not in done for done in before) for node in range(len(dag.ms))]
    total = sum(dag.ms[node][route[stage]] for node, stage in enumerate(stages))
    for boundary, pair in enumerate(pairwise(route)):
        hop = hops[pair]
        total += hop.fixed_ms
        for tensor in dag.tensors:
            start = 0 if tensor.producer is None else stages[tensor.producer]
            ends = [len(before) if tensor.goal == "end" else 0, *(stages[node] for node in tensor.consumers)]
            if min(ends[1:], default=start) < start:
                return inf
            if start <= boundary < max(ends):
                total += tensor.nbytes * hop.ms_per_byte if tensor.nbytes < inf else inf
            if tensor.goal == "home" and boundary < start:
                total += tensor.nbytes * hop.home_ms_per_byte
    return total


def _goals(dag: Dag, hop: Hop) -> Floats:
    """What it costs each node beyond a boundary that its tensors go home over it, less what others pay to cross it."""
    found = np.zeros(len(dag.ms))
    for tensor in dag.tensors:
        if tensor.producer is not None and tensor.goal == "home":
            found[tensor.producer] += tensor.nbytes * hop.home_ms_per_byte
        elif tensor.producer is not None and tensor.goal == "end":
            found[tensor.producer] -= tensor.nbytes * hop.ms_per_byte
    return found


def _wires(dag: Dag) -> _Wires:
    wires: list[tuple[int, int, float]] = []
    variables = len(dag.ms)
    for tensor in dag.tensors:
        start = -1 if tensor.producer is None else tensor.producer
        wires += _order(tensor)
        if tensor.goal == "end":
            continue  # it crosses whoever consumes it
        if len(tensor.consumers) > 1:
            wires.append((start, variables, tensor.nbytes))
            wires += [(variables, node, inf) for node in tensor.consumers]
            variables += 1
        else:
            wires += [(start, node, tensor.nbytes) for node in tensor.consumers]
    table = np.array(wires, np.float64).reshape(-1, 3)
    return _Wires(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], variables)


def _order(tensor: Tensor) -> Iterator[tuple[int, int, float]]:
    """A consumer never lies before its producer."""
    if tensor.producer is not None:
        yield from ((node, tensor.producer, inf) for node in tensor.consumers)


def _scaled(nbytes: Floats, ms_per_byte: float) -> Floats:
    return np.where(np.isinf(nbytes), inf, np.where(np.isinf(nbytes), 0.0, nbytes) * ms_per_byte)
