"""Finds cuts that are nested in one another, so that one order of the steps has all of them. Pure.

For one machine before the cut and one behind it, and a rate between them, what varies in bytes(before) + speed x
work(before) is one number; as it falls, the best cuts grow and each contains the one before (Gallo, Grigoriadis and
Tarjan 1989). Between two of them the next is the minimum cut at the number that makes both cost the same. This is done
in each part of the graph between two steps that all others lie before or behind, where the part's own best cuts are,
not only the whole graph's; a chain has nothing between such steps and is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice, pairwise
from math import inf
from operator import or_

import numpy as np

from splitbus_gateway.graph.flow import assign
from splitbus_gateway.graph.mincut import Tensor

_NOISE = 1e-6  # of all that is added up: a smaller gain may be the rounding of `assign`


@dataclass(frozen=True)
class Measure:
    """One way to count: work of each step, and the tensors between them with bytes (infinite: cannot cross)."""

    work: tuple[float, ...]
    tensors: tuple[Tensor, ...]


def nested_cuts(measures: Sequence[Measure], *, worth: float = 0.0) -> tuple[frozenset[int], ...]:
    """The steps before each cut found, smallest first, each within the next; neither of the graph's ends.

    The first measure decides; a later one finds cuts only between those of the measures before it. All have the same
    tensors but for their bytes. Between two cuts a third has to save more than the share `worth`, unless a step that
    all others lie before or behind makes it one.
    """
    lattice = _Lattice(measures[0])
    searches = [_Search(measure) for measure in measures]
    everything = (1 << len(measures[0].work)) - 1
    found: set[int] = set()
    gaps = [(0, everything)]
    while gaps:
        low, high = lattice.legal(*gaps.pop())
        if low & ~high:
            continue  # something at its very ends cannot cross
        found |= {low, high}
        if (high & ~low).bit_count() > 1:
            better = (search.between(low, high, worth) for search in searches)
            inside = lattice.pivots(low, high) or list(islice(filter(None, better), 1))
            gaps += pairwise((low, *inside, high)) if inside else ()
    return tuple(frozenset(_bits(mask)) for mask in sorted(found - {0, everything}, key=int.bit_count))


class _Lattice:
    """The sets of steps that have with each step all before it, as bits."""

    def __init__(self, measure: Measure) -> None:
        self._ancestors, self._descendants = _closures(measure)
        self._stuck = [_Carried.of(tensor) for tensor in measure.tensors if tensor.nbytes == inf]

    def legal(self, low: int, high: int) -> tuple[int, int]:
        """The smallest set with `low` and the largest within `high` that no tensor crosses which cannot."""
        before = None
        while before != (low, high):
            before = low, high
            for tensor in self._stuck:
                if tensor.made(low):
                    low |= _union(self._ancestors, tensor.readers) | tensor.readers
                if tensor.producer >= 0 and tensor.leaves(high):
                    high &= ~(self._descendants[tensor.producer] | 1 << tensor.producer)
        return low, high

    def pivots(self, low: int, high: int) -> list[int]:
        """The sets just before and just behind each step in between that all others there lie before or behind."""
        gap = high & ~low
        others = gap.bit_count() - 1
        sets = set()
        for step in _bits(gap):
            before, behind = self._ancestors[step] & gap, self._descendants[step] & gap
            if before.bit_count() + behind.bit_count() == others:
                sets |= {low | before, low | before | 1 << step}
        return sorted(sets - {low, high}, key=int.bit_count)


def _closures(measure: Measure) -> tuple[list[int], list[int]]:
    """For each step the set of all before it, and of all behind it, as bits; steps are in an order that runs."""
    count = len(measure.work)
    ancestors, descendants = [0] * count, [0] * count
    edges = sorted((t.producer, node) for t in measure.tensors if t.producer is not None for node in t.consumers)
    for producer, node in sorted(edges, key=lambda edge: edge[1]):
        ancestors[node] |= ancestors[producer] | 1 << producer
    for producer, node in reversed(edges):
        descendants[producer] |= descendants[node] | 1 << node
    return ancestors, descendants


def _union(sets: Sequence[int], steps: int) -> int:
    return reduce(or_, (sets[step] for step in _bits(steps)), 0)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


class _Search:
    """One measure, asked for the best cut between two others."""

    def __init__(self, measure: Measure) -> None:
        self._work = measure.work
        self._tensors = [_Carried.of(tensor) for tensor in measure.tensors]
        self._touching: list[set[int]] = [set() for _ in measure.work]
        for place, tensor in enumerate(measure.tensors):
            for step in tensor.consumers if tensor.producer is None else (tensor.producer, *tensor.consumers):
                self._touching[step].add(place)

    def between(self, low: int, high: int, worth: float) -> int:
        """The set cheaper than `low` and `high` where these cost the same (as no work is between them); 0 if none."""
        steps = list(_bits(high & ~low))
        tensors = [self._tensors[place] for place in sorted(set().union(*(self._touching[step] for step in steps)))]
        start, stop = _nbytes(tensors, low), _nbytes(tensors, high)
        work = sum(self._work[step] for step in steps)
        price = (start - stop) / work if work else 0.0
        found = low | self._cheapest(steps, tensors, low, high, price)
        cost = _nbytes(tensors, found) + price * sum(self._work[step] for step in _bits(found & ~low))
        noise = _NOISE * (start + stop + abs(price) * work)
        return found if cost < (1 - worth) * min(start, stop + price * work) - noise else 0

    def _cheapest(self, steps: list[int], tensors: list[_Carried], low: int, high: int, price: float) -> int:
        """Those of `steps` that belong before the cut, for work at this price in bytes."""
        place = {step: index for index, step in enumerate(steps)}
        gains = [-price * self._work[step] for step in steps]
        wires: list[tuple[int, int, float]] = []
        for tensor in tensors:
            tail = place.get(tensor.producer, -1)
            heads = [place[step] for step in _bits(tensor.readers & high & ~low)]
            wires += [(head, tail, inf) for head in heads if tail >= 0]
            if tensor.leaves(high):
                if tail >= 0:
                    gains[tail] -= tensor.nbytes
            elif heads:
                wires.append((tail, len(gains), tensor.nbytes))
                wires += [(len(gains), head, inf) for head in heads]
                gains.append(0.0)
        table = np.array(wires, np.float64).reshape(-1, 3)
        pairs = table[:, :2].astype(np.int64)
        beyond = assign(np.array(gains), pairs[:, 0], pairs[:, 1], table[:, 2])
        return sum(1 << step for step, flag in zip(steps, beyond[: len(steps)].tolist(), strict=True) if not flag)


@dataclass(frozen=True, slots=True)
class _Carried:
    """A tensor with its readers as bits; producer -1 is what all sets have."""

    producer: int
    readers: int
    end: bool
    nbytes: float

    @classmethod
    def of(cls, tensor: Tensor) -> _Carried:
        producer = -1 if tensor.producer is None else tensor.producer
        readers = sum(1 << step for step in set(tensor.consumers))
        return cls(producer, readers, tensor.goal == "end", tensor.nbytes)

    def made(self, before: int) -> bool:
        return self.producer < 0 or bool(before >> self.producer & 1)

    def leaves(self, before: int) -> bool:
        """Whether something behind the steps `before` wants it."""
        return self.end or bool(self.readers & ~before)


def _nbytes(tensors: Sequence[_Carried], before: int) -> float:
    return sum(tensor.nbytes for tensor in tensors if tensor.made(before) and tensor.leaves(before))
