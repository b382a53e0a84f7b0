"""The terms of priced ways and the limits on them, by hand; privacy against everything that could break it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from tests.gateway.planning import broken, every_split, limited_problems, node, three_tiers

from splitbus_gateway.constraints import unmet
from splitbus_gateway.planner import alternates, plan, plan_anyway
from splitbus_gateway.pricing import Priced, price
from splitbus_gateway.privacy import NO_FIGURES
from splitbus_gateway.problem import OBJECTIVES, Cut, Limits, Objective, Pinned, Problem, Split
from splitbus_schemas.errors import UnsatisfiableError

LOCAL = Split(("cam1",))
THREE = Split(("cam1", "edge1", "cloud1"), (Cut(3, "q8"), Cut(7, "raw")))


def best(objective: str = "latency", **limits: Any) -> Split:
    return plan(three_tiers(objective=OBJECTIVES[objective], limits=Limits(**limits))).best.split


def test_the_terms_of_three_stages_by_hand() -> None:
    way = price(three_tiers(), THREE)
    # the camera runs 20 and encodes 10; 100 kB at 40 Mbit/s take 20; the edge decodes 0.5 and runs 4;
    # 10 kB at 100 take 0.8; the cloud runs 2; 4 kB back at 40 take 0.8; half round trips are 1, 5 and 10
    assert way.ms == pytest.approx(20 + 10 + (1 + 20) + 0.5 + 4 + (5 + 0.8) + 2 + (10 + 0.8))
    assert way.interval_ms == pytest.approx(30)
    assert (way.bytes, way.up_bytes, way.down_bytes) == (114e3, 100e3, 4e3)
    assert way.device_ms == pytest.approx(30)
    assert way.loss == pytest.approx(0.01)
    assert way.device_mb == 5.0
    assert way.score(Objective(1.0, 2.0, 0.1, 3.0)) == pytest.approx(way.ms + 2 * 30 + 11.4 + 3 * 30)


def test_the_terms_of_the_device_alone_by_hand() -> None:
    way = price(three_tiers(), LOCAL)
    assert (way.ms, way.interval_ms, way.bytes, way.device_ms, way.loss, way.device_mb) == (100, 100, 0, 100, 0, 50)


@pytest.mark.parametrize(
    ("objective", "split"),
    [
        # 26.5 ms; see test_planner
        ("latency", Split(("cam1", "edge1"), (Cut(0, "q8"),))),
        # 10 ms to encode, 5 on the link and 10.5 at the edge; with the cloud behind it the edge has only 2.5 + 4 x 0.5
        ("throughput", Split(("cam1", "edge1", "cloud1"), (Cut(0, "q8"), Cut(7, "raw")))),
        ("bytes", LOCAL),
        # nothing to compute for input as it is, and the edge is the faster of two that leave it nothing
        ("device", Split(("cam1", "edge1"), (Cut(0, "raw"),))),
    ],
)
def test_what_each_objective_chooses_by_hand(objective: str, split: Split) -> None:
    assert best(objective) == split


def test_a_deadline_bounds_what_other_objectives_may_take() -> None:
    assert best("bytes", deadline_ms=99.9) != LOCAL
    assert best("bytes", deadline_ms=100.0) == LOCAL
    late = plan(three_tiers(objective=OBJECTIVES["bytes"], limits=Limits(deadline_ms=20.0)))
    assert late.best.split == best("latency")
    assert (late.in_time, late.unmet) == (False, ("deadline 20 ms",))


def test_the_input_is_kept_on_the_device() -> None:
    # 20 to run, 10 to encode, 21 on the link, 8.5 at the edge, 1.4 back
    assert best(keep_on_device=1) == Split(("cam1", "edge1"), (Cut(3, "q8"),))
    assert best(keep_on_device=3) == LOCAL
    assert best(keep_on_device=99) == LOCAL


def test_blocks_are_kept_on_the_site() -> None:
    no_edge = three_tiers(workers=three_tiers().workers[1:])
    assert plan(no_edge).best.split == Split(("cam1", "cloud1"), (Cut(0, "q8"),))
    kept = plan(replace(no_edge, limits=Limits(keep_on_site=2))).best.split
    assert kept == Split(("cam1", "cloud1"), (Cut(7, "raw"),))
    assert best(keep_on_site=3).nodes in {("cam1",), ("cam1", "edge1")}
    with_edge = best("throughput", keep_on_site=2)
    assert with_edge == Split(("cam1", "edge1", "cloud1"), (Cut(0, "q8"), Cut(7, "raw")))


def test_a_tensor_that_skips_blocks_is_not_shown_behind_them() -> None:
    tensors = {0: ("image",), 3: ("a", "image"), 7: ("b",)}
    problem = three_tiers(tensors=tensors, limits=Limits(keep_on_device=1))
    with pytest.raises(UnsatisfiableError, match="shows what block 1 is given: the input stays on the device"):
        price(problem, Split(("cam1", "edge1"), (Cut(3, "raw"),)))
    assert price(problem, Split(("cam1", "edge1"), (Cut(7, "raw"),)))
    assert price(three_tiers(limits=Limits(keep_on_device=1)), Split(("cam1", "edge1"), (Cut(3, "raw"),)))


def test_pictures_are_rebuilt_no_better_than_allowed() -> None:
    alike = np.array([np.nan, 0.6, 0.25])

    def chosen(most: float, rebuilt: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None = alike) -> Priced:
        return plan(three_tiers(rebuilt=rebuilt, limits=Limits(max_rebuilt=most))).best

    assert plan(three_tiers(rebuilt=alike)).best.split.cuts[0].index == 0
    assert plan(three_tiers(rebuilt=alike)).best.rebuilt is None
    middle, late, local = chosen(0.6), chosen(0.5), chosen(0.2)
    assert (middle.split.cuts[0].index, middle.rebuilt) == (3, 0.6)
    assert (late.split.cuts[0].index, late.rebuilt) == (7, 0.25)
    assert (local.split, local.rebuilt) == (LOCAL, 0.0)
    assert chosen(0.99).split == middle.split, "a cut without a figure is not used"
    assert chosen(0.99, None).split == LOCAL
    with_floor = Limits(max_rebuilt=0.99, keep_on_device=2)
    assert plan(three_tiers(rebuilt=alike, limits=with_floor)).best.split == late.split, "beside the other floors"
    assert plan(three_tiers(limits=with_floor)).blocked == (f"every cut: {NO_FIGURES}",)


def test_memory_bytes_and_orders_narrow_the_ways() -> None:
    assert best("bytes", device_memory_mb=49.0) == Split(("cam1", "edge1"), (Cut(7, "q8"),))
    # 10 frames a second: 2.5 kB up and 4 kB down are 0.52 Mbit/s, 14 kB are 1.12, 29 kB 2.32
    problem = three_tiers(frames_per_s=10.0)
    for most, sent in ((2.33, 25e3), (2.31, 10e3), (1.13, 10e3), (1.11, 2.5e3), (0.53, 2.5e3), (0.51, 0.0)):
        assert plan(replace(problem, limits=Limits(max_mbit=most))).best.up_bytes == sent
    daily = 10 * 86400 * 6.5e3 / 1e6
    assert plan(replace(problem, limits=Limits(max_mb_per_day=daily + 1))).best.up_bytes == 2.5e3
    assert plan(replace(problem, limits=Limits(max_mb_per_day=daily - 1))).best.split == LOCAL
    assert best(max_mbit=0.1) == best()  # how often frames come is not known
    assert best(must_run={"cloud"}).nodes[-1] == "cloud1"
    assert best(must_run={"edge1", "cloud1"}).nodes == ("cam1", "edge1", "cloud1")
    assert best(must_run={"device"}).cuts[0].index > 0
    assert best("bytes", must_not_run={"device"}).cuts[0] == Cut(0, "q8")
    assert best(must_not_run={"edge"}).nodes == ("cam1", "cloud1")
    assert plan(three_tiers(limits=Limits(must_not_run=frozenset({"edge"})))).blocked == ("edge1 must not run",)


def test_a_pin_overrides_agreement_and_bytes_but_neither_privacy_nor_the_workers_that_must_not_run() -> None:
    pin = Pinned((Cut(0, "q8"),), ("edge1",))
    strict = Limits(min_agreement=1.0, max_mbit=0.1, must_run=frozenset({"cloud"}), deadline_ms=1.0)
    choice = plan(three_tiers(pin=pin, limits=strict, frames_per_s=10.0))
    assert choice.best.split.cuts == pin.cuts
    assert choice.unmet == (
        "deadline 1 ms",
        "agreement 1",
        "at most 0.1 Mbit/s at 10 frames a second",
        "order to run cloud",
    )
    for limits, reason in (
        (Limits(keep_on_device=1), "input q8 on edge1 shows what block 1 is given: the input stays on the device"),
        (Limits(must_not_run=frozenset({"edge1"})), "edge1 must not run"),
        (Limits(max_rebuilt=0.3), "input q8 on edge1 shows pictures that are rebuilt 1 alike: at most 0.3 is allowed"),
    ):
        with pytest.raises(UnsatisfiableError, match=reason):
            plan(three_tiers(pin=pin, limits=limits))
    anywhere = Pinned((Cut(0, "q8"),))
    assert plan(three_tiers(pin=anywhere, limits=Limits(keep_on_site=1))).best.split.nodes == ("cam1", "edge1")


def test_alternates_keep_privacy_too() -> None:
    split = Split(("cam1", "edge1", "cloud1"), (Cut(0, "q8"), Cut(7, "raw")))
    assert {way.split.nodes[-1] for way in alternates(three_tiers(), split)} == {"edge1", "cloud1"}
    on_site = alternates(three_tiers(limits=Limits(keep_on_site=2)), split)
    assert [way.split.nodes for way in on_site] == [("cam1", "edge1")]
    assert alternates(three_tiers(limits=Limits(keep_on_device=1)), split) == ()


def test_a_gateway_that_must_answer_waives_orders_and_says_so() -> None:
    problem = three_tiers(limits=Limits(must_run=frozenset({"edge9"}), keep_on_device=1))
    with pytest.raises(UnsatisfiableError, match="order to run edge9 cannot be kept: edge9 is not there"):
        plan(problem)
    choice = plan_anyway(problem)
    assert choice.unmet == ("order to run edge9",)
    assert choice.best.split.cuts[0].index == 3
    with pytest.raises(UnsatisfiableError, match="cam1 has no profile yet"):
        plan_anyway(replace(problem, device=node("cam1", "device", None)))
    with pytest.raises(UnsatisfiableError, match="edge8 is not there"):
        plan_anyway(replace(problem, pin=Pinned((Cut(0, "q8"),), ("edge8",))))


@given(limited_problems())
@settings(max_examples=150, deadline=None)
def test_no_way_that_can_be_priced_shows_what_is_kept(problem: Problem) -> None:
    for split in every_split(problem):
        try:
            way = price(problem, split)
        except UnsatisfiableError:
            continue
        missed = broken(problem, way)
        assert set(unmet(problem, way)) == missed
        assert not missed & {"keep_on_device", "keep_on_site"}
        assert not {f.tier for f in problem.workers if f.node in split.nodes} & problem.limits.must_not_run


@given(limited_problems())
@settings(max_examples=100, deadline=None)
def test_alternates_of_any_way_show_nothing_that_is_kept(problem: Problem) -> None:
    for split in every_split(problem):
        for way in alternates(problem, split):
            assert not broken(problem, way) & {"keep_on_device", "keep_on_site"}


def test_memory_that_is_not_known_is_not_judged() -> None:
    limits = Limits(device_memory_mb=1.0, keep_on_device=1)
    assert plan(three_tiers(memory_mb=None, limits=limits)).best.device_mb is None
    with pytest.raises(UnsatisfiableError, match="device memory 1 MB"):
        plan(three_tiers(limits=limits), hard_deadline=True)
