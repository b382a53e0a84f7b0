"""Nested cuts against all cuts of random graphs: for every price of work, one of those found is as good as any."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from splitbus_gateway.graph.mincut import Dag, Hop, Tensor
from splitbus_gateway.graph.nested import Measure, nested_cuts

from .test_mincut import BruteForce, random_dag

PRICES = [0.0, *np.logspace(-2, 2, 20)]


def random_measure(rng: random.Random) -> Measure:
    """Some steps without work; the only goal is the end, as nothing comes home over a single boundary."""
    dag = random_dag(rng, 2)
    work = tuple(times[0] if rng.random() < 0.7 else 0.0 for times in dag.ms)
    tensors = (Tensor(t.nbytes, t.producer, t.consumers, "end" if t.goal == "end" else "inside") for t in dag.tensors)
    return Measure(work, tuple(tensors))


def carried(measure: Measure, done: frozenset[int]) -> float:
    made = (t for t in measure.tensors if t.producer is None or t.producer in done)
    return sum(t.nbytes for t in made if t.goal == "end" or not done.issuperset(t.consumers))


def worked(measure: Measure, done: frozenset[int]) -> float:
    return sum(measure.work[step] for step in done)


def check_nested(measure: Measure, found: tuple[frozenset[int], ...]) -> None:
    for before, after in pairwise((frozenset(), *found, frozenset(range(len(measure.work))))):
        assert before < after
    for done in found:
        for tensor in measure.tensors:
            assert tensor.producer is None or tensor.producer in done or not done.intersection(tensor.consumers)


def test_the_best_for_every_price_is_among_those_found() -> None:
    rng = random.Random("nested")
    inner = 0
    for _ in range(200):
        measure = random_measure(rng)
        found = nested_cuts([measure])
        check_nested(measure, found)
        ends = (frozenset[int](), frozenset(range(len(measure.work))))
        brute = BruteForce(Dag(tuple((work,) for work in measure.work), measure.tensors))
        nbytes, done = brute.boundary(Hop(1.0)), brute.has @ np.array(measure.work)
        for price in PRICES:
            costs = {
                cut: carried(measure, cut) + price * sum(measure.work[step] for step in cut) for cut in (*ends, *found)
            }
            assert min(costs.values()) == pytest.approx((nbytes + price * done).min(), rel=1e-5, abs=1e-5)
            inner += min(costs, key=lambda cut: costs[cut]) not in ends
    assert inner > 300, "the ends are nearly always best: no proof"


def test_a_later_measure_only_adds() -> None:
    rng = random.Random("later")
    more = 0
    for _ in range(100):
        first = random_measure(rng)
        tensors = (Tensor(rng.randrange(300), t.producer, t.consumers, t.goal) for t in first.tensors)
        second = Measure(tuple(float(rng.randrange(50)) for _ in first.work), tuple(tensors))
        alone, both = nested_cuts([first]), nested_cuts([first, second])
        check_nested(first, both)
        assert set(alone) <= set(both)
        more += len(both) > len(alone)
    assert more > 10


def test_every_place_of_a_chain_is_a_cut() -> None:
    tensors = (
        Tensor(5, None, (0,)),
        *(Tensor(9 - step, step, (step + 1,)) for step in range(4)),
        Tensor(1, 4, (), "end"),
    )
    found = nested_cuts([Measure((1.0,) * 5, tensors)])
    assert found == tuple(frozenset(range(size)) for size in range(1, 5))


def test_a_wide_flat_graph() -> None:
    """400 branches, half of which shrink what they read: these come first, and two thousand steps take no recursion."""
    tensors = [Tensor(7, None, (0,)), Tensor(1000, 0, tuple(range(1, 401)))]
    tensors += [Tensor(2 if step % 2 else 900, step, (401,)) for step in range(1, 401)]
    chain = [Tensor(4, step, (step + 1,)) for step in range(401, 2000)]
    found = nested_cuts([Measure((1.0,) * 2001, (*tensors, *chain, Tensor(4, 2000, (), "end")))])
    assert len(found) >= 1600
