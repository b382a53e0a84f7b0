"""The minimum cut against all ways there are: every downset, and every pair of nested ones, of 1,000 random graphs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from splitbus_gateway.graph import Dag, Hop, Partition, Tensor, best_partition, partition
from splitbus_gateway.graph.mincut import Goal, Hops

Number: TypeAlias = Callable[[random.Random, int], float]

MAX_NODES = 14
GOALS: tuple[Goal, ...] = ("inside", "inside", "inside", "home", "end")


def whole(rng: random.Random, top: int) -> float:
    """The search is exact with these, so that it can be compared without tolerance."""
    return float(rng.randrange(top))


def real(rng: random.Random, top: int) -> float:
    return rng.random() * top


def wide(rng: random.Random, top: int) -> float:
    return float(10 ** rng.uniform(-6, 0)) * top


def random_dag(rng: random.Random, tiers: int, number: Number = whole) -> Dag:
    count = rng.randint(1, MAX_NODES)
    fan_in = rng.choice((1, 2, 4))
    producers: list[int | None] = [None, *rng.choices([None], k=rng.randrange(2)), *range(count)]
    consumers: list[set[int]] = [set() for _ in producers]
    for node in range(count):
        known = len(producers) - count + node
        for _ in range(rng.randint(1, fan_in)):
            consumers[rng.randrange(known)].add(node)
    slower = [rng.choice((1, 3, 10)) for _ in range(tiers)]
    ms = tuple(tuple(number(rng, 50) * slow for slow in slower) for _ in range(count))
    tensors = []
    for producer, readers in zip(producers, consumers, strict=True):
        goal = rng.choice(GOALS) if readers else rng.choice(GOALS[2:])
        nbytes = math.inf if goal == "inside" and rng.random() < 0.05 else number(rng, 300)
        tensors.append(Tensor(nbytes, producer, tuple(sorted(readers)), goal))
    return Dag(ms, tuple(tensors))


def random_hops(rng: random.Random, tiers: int) -> dict[tuple[int, int], Hop]:
    pairs = [(first, last) for first in range(tiers) for last in range(first + 1, tiers)]
    return {pair: Hop(whole(rng, 6), whole(rng, 100), whole(rng, 3)) for pair in pairs if rng.random() < 0.9}


class BruteForce:
    """Costs of all sets of nodes at once; set k has the nodes whose bits are set in k."""

    def __init__(self, dag: Dag) -> None:
        self.dag = dag
        self.count = len(dag.ms)
        sets = np.arange(2**self.count)
        self.has = (sets[:, None] >> np.arange(self.count) & 1).astype(np.bool_)
        self.closed = np.ones(sets.size, np.bool_)
        for tensor in dag.tensors:
            if tensor.producer is not None:
                for node in tensor.consumers:
                    self.closed &= ~self.has[:, node] | self.has[:, tensor.producer]

    def boundary(self, hop: Hop) -> NDArray[np.float64]:
        """What crosses behind each set."""
        cost = np.where(self.closed, 0.0, np.inf)
        for tensor in self.dag.tensors:
            made = True if tensor.producer is None else self.has[:, tensor.producer]
            wanted = np.full(self.closed.size, tensor.goal == "end")
            wanted |= ~self.has[:, list(tensor.consumers)].all(axis=1)
            each = math.inf if tensor.nbytes == math.inf else tensor.nbytes * hop.ms_per_byte
            cost += np.where(made & wanted, each, 0.0)
            if tensor.goal == "home":
                cost += np.where(made, 0.0, tensor.nbytes * hop.home_ms_per_byte)
        return cost

    def least(self, route: tuple[int, ...], hops: Hops) -> float:
        ms = np.array(self.dag.ms).reshape(self.count, -1)
        best = np.zeros(1)  # by set: the cheapest ways to run it and carry on behind it
        for boundary, pair in enumerate(pairwise(route)):
            run = self.has @ (ms[:, pair[0]] - ms[:, pair[1]])
            best = (self._least_within(best) if boundary else 0.0) + run + self.boundary(hops[pair])
        fixed = sum(hops[pair].fixed_ms for pair in pairwise(route))
        return float(best.min() + ms[:, route[-1]].sum() + fixed)

    def _least_within(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each set the least of all its subsets."""
        found = costs.copy()
        for node in range(self.count):
            pairs = found.reshape(-1, 2, 2**node)
            pairs[:, 1] = np.minimum(pairs[:, 0], pairs[:, 1])
        return found


def check_sets(dag: Dag, found: Partition) -> None:
    for smaller, larger in pairwise(found.before):
        assert smaller <= larger
    for done in found.before:
        for tensor in dag.tensors:
            if tensor.producer is not None and tensor.producer not in done:
                assert not done.intersection(tensor.consumers)


@pytest.mark.parametrize("number", [whole, real, wide])
@pytest.mark.parametrize("route", [(0, 1), (0, 1, 2)])
def test_least_cost_of_random_graphs(route: tuple[int, ...], number: Number) -> None:
    """200 graphs for each number of boundaries and kind of numbers, 1,200 in all."""
    rng = random.Random(f"{route} {number.__name__}")
    for _ in range(200):
        dag = random_dag(rng, len(route), number)
        hops = {pair: Hop(whole(rng, 5), 7.0, whole(rng, 3)) for pair in pairwise(route)}
        found = partition(dag, route, hops)
        check_sets(dag, found)
        expected = BruteForce(dag).least(route, hops)
        assert found.ms == (expected if number is whole else pytest.approx(expected, rel=1e-6)), dag


def test_least_cost_over_all_routes() -> None:
    rng = random.Random("routes")
    routes = [(0,), (0, 1), (0, 2), (0, 1, 2)]
    chosen = set()
    for _ in range(150):
        dag = random_dag(rng, 3)
        hops = random_hops(rng, 3)
        brute = BruteForce(dag)
        possible = [route for route in routes if all(pair in hops for pair in pairwise(route))]
        found = best_partition(dag, hops)
        assert found.ms == min(brute.least(route, hops) for route in possible)
        chosen.add(found.route)
    assert chosen == set(routes), "the graphs are no proof of routes that are never best"


def test_a_tensor_is_carried_once_however_many_read_it() -> None:
    dag = Dag(((1.0, 0.0),) + ((100.0, 1.0),) * 5, (Tensor(10, None, (0,)), Tensor(4, 0, (1, 2, 3, 4, 5))))
    assert partition(dag, (0, 1), {(0, 1): Hop(1.0)}) == Partition((0, 1), (frozenset({0}),), 1 + 4 + 5)


def test_a_cut_that_is_no_prefix() -> None:
    """Two branches, each narrow at another depth: 0 to 2 wide then narrow, 3 to 5 narrow then wide."""
    nbytes = (90, 5, 90, 5, 90, 90)
    tensors = [Tensor(40, None, (0, 3))]
    tensors += [Tensor(size, node, (6,) if node in {2, 5} else (node + 1,)) for node, size in enumerate(nbytes)]
    dag = Dag(((10.0, 1.0),) * 7, (*tensors, Tensor(1, 6, (), "end")))
    found = partition(dag, (0, 1), {(0, 1): Hop(1.2)})
    assert found == Partition((0, 1), (frozenset({0, 1, 3}),), 3 * 10 + 4 + 10 * 1.2)


def test_an_edge_is_used_only_when_it_pays_for_its_round_trip() -> None:
    dag = Dag(((100.0, 10.0, 1.0),) * 3, (Tensor(1, None, (0,)), Tensor(1, 0, (1,)), Tensor(1, 1, (2,))))

    def best(edge_ms: float) -> Partition:
        return best_partition(dag, {(0, 1): Hop(0, edge_ms), (1, 2): Hop(0, 5), (0, 2): Hop(50, 5)})

    assert best(4) == Partition((0, 1, 2), (frozenset(), frozenset()), 4 + 5 + 3)
    assert best(60) == Partition((0, 2), (frozenset(),), 50 + 5 + 3)
    assert best(1e4).route == (0, 2)
    assert best_partition(dag, {}) == Partition((0,), (), 300)


def test_what_cannot_cross_stays_with_its_reader() -> None:
    dag = Dag(((10.0, 1.0),) * 3, (Tensor(0, None, (0,)), Tensor(math.inf, 0, (1,)), Tensor(50, 1, (2,))))
    assert partition(dag, (0, 1), {(0, 1): Hop(0.0)}).before == (frozenset(),)
    assert partition(Dag(dag.ms, (Tensor(math.inf, None, (2,)),)), (0, 1), {(0, 1): Hop(1.0)}).before[0] >= {2}


def test_a_graph_without_nodes() -> None:
    assert best_partition(Dag((), ()), {(0, 1): Hop(1.0)}) == Partition((0,), (), 0)


@pytest.mark.parametrize(
    ("ms", "tensor", "message"),
    [
        (((1.0, math.nan),), Tensor(1, 0), "finite time on every tier"),
        (((1.0,), (1.0, 2.0)), Tensor(1, 0), "finite time on every tier"),
        (((1.0, 2.0),), Tensor(-1, 0), "cannot have -1 bytes"),
        (((1.0, 2.0),), Tensor(math.nan, 0), "cannot have nan bytes"),
        (((1.0, 2.0),), Tensor(math.inf, 0, (), "end"), "cannot have inf bytes"),
        (((1.0, 2.0),), Tensor(1, 0, (1,)), "a node that is not there"),
    ],
)
def test_a_wrong_graph_is_refused(ms: tuple[tuple[float, ...], ...], tensor: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dag(ms, (tensor,))
