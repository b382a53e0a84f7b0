"""The list of ways worth having, by hand and against a plain loop over all ways."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from tests.gateway.planning import every_way, limited_problems, node, three_tiers
from tests.gateway.test_planner import large_problem

from splitbus_gateway.pareto import pareto, unbeaten
from splitbus_gateway.planner import plan
from splitbus_gateway.pricing import Priced
from splitbus_gateway.problem import Cut, Limits, Problem, Split
from splitbus_schemas.errors import UnsatisfiableError


def figures(ways: list[Priced]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([(way.ms, way.loss, way.bytes / 1e3, way.device_mb or 0.0) for way in ways])


def test_the_list_by_hand() -> None:
    # lossless ways on the edge: each later cut takes longer and more memory; 3 sends more than the input, so it has
    # nothing for it; all on the device sends nothing
    no_cloud = three_tiers(workers=three_tiers().workers[:1], limits=Limits(lossless_only=True))
    assert [way.split for way in pareto(no_cloud)] == [
        Split(("cam1", "edge1"), (Cut(0, "raw"),)),
        Split(("cam1", "edge1"), (Cut(7, "raw"),)),
        Split(("cam1",)),
    ]


def test_twins_are_listed_once() -> None:
    links = three_tiers().links
    twins = (node("edge1", "edge", [0, 2, 6, 10]), node("edge2", "edge", [0, 2, 6, 10]))
    problem = three_tiers(workers=twins, links={**links, ("cam1", "edge2"): links["cam1", "edge1"]})
    assert {way.split.nodes for way in pareto(problem)} == {("cam1",), ("cam1", "edge1")}


def test_of_equal_rows_the_first_is_kept() -> None:
    rows = np.array([[2.0, 2.0], [1.0, 3.0], [1.0, 3.0 + 1e-12], [2.0, 3.0], [3.0, 1.0]])
    assert sorted(unbeaten(rows)) == [0, 1, 4]
    assert unbeaten(np.zeros((0, 2))).size == 0


@given(limited_problems())
@settings(max_examples=250, deadline=None)
def test_the_list_equals_one_by_one(problem: Problem) -> None:
    ways = list(every_way(problem, hard_deadline=True))
    if not ways:
        with pytest.raises(UnsatisfiableError, match="cannot be kept"):
            pareto(problem)
        return
    listed = pareto(problem)
    assert {way.split for way in listed} <= {way.split for way in ways}
    assert [way.ms for way in listed] == sorted(way.ms for way in listed)
    everything, front = figures(ways), figures(list(listed))
    for way in everything:  # each is equalled or beaten by one of the list
        assert (front <= way + 1e-6).all(axis=1).any()
    for place, way in enumerate(front):  # none of the list is beaten by any, nor equalled by another of the list
        as_good = (everything <= way + 1e-10).all(axis=1)
        assert not (as_good & (everything < way - 1e-6).any(axis=1)).any()
        assert not (np.abs(np.delete(front, place, axis=0) - way) < 1e-10).all(axis=1).any()


def test_the_plan_is_on_the_list() -> None:
    problem = three_tiers()
    assert plan(problem).best in pareto(problem)


def test_300000_ways_take_a_fraction_of_a_second() -> None:
    problem = replace(
        large_problem(cuts=100, codecs=8, edges=1, clouds=1), memory_mb=np.linspace(0, 40, 101), limits=Limits()
    )
    begun = time.perf_counter()
    assert len(pareto(problem)) > 3
    assert time.perf_counter() - begun < 1.0
