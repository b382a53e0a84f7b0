"""Replays: our own change logic along traces, against hindsight, statics and rivals."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.given import CODECS, CUTS, LINKS, facts, question, world

from splitbus_gateway.atlas import Spot, moved
from splitbus_gateway.offline import Demands
from splitbus_gateway.planner import plan
from splitbus_gateway.policies import POLICIES
from splitbus_gateway.pricing import price
from splitbus_gateway.problem import OBJECTIVES, Cut, Limits, Split
from splitbus_gateway.replay import OURS, STATIC, Replay, replay
from splitbus_gateway.stream import StreamSettings
from splitbus_gateway.trace import Moment, Trace, drive, steps
from splitbus_schemas.errors import ConfigError

LINK = ("device", "edge1")


def run(trace: Trace, limits: Limits | None = None, *, fps: float = 10.0) -> Replay:
    """The model by hand with one edge along a trace."""
    limits = limits or Limits()
    problem = question(Demands(limits=limits), links=LINKS[:1])
    return replay(world(links=LINKS[:1]), problem, facts(), LINK, trace, StreamSettings(limits=limits), fps=fps)


def test_a_step_is_followed_and_the_way_back_too() -> None:
    found = run(steps([40, 2, 40], each_s=20, rtt_ms=5))
    at = [change.at for change in found.changes]
    assert at[0] == 0.0
    assert any(20.0 < second < 21.5 for second in at), at
    ours = found.course(OURS)
    middle = found.segments[1]
    assert middle.best != found.segments[0].best == found.segments[2].best
    ran = [ours.splits[place] for place in ours.ran[middle.frames][20:]]
    assert set(ran) == {middle.best}
    assert all(change.why for change in found.changes)


def test_a_steady_link_changes_nothing_and_costs_no_regret() -> None:
    found = run(steps([40], each_s=30))
    ours = found.course(OURS)
    assert ours.changes == 0
    assert found.regret_ms(ours) == pytest.approx(0.0, abs=1e-9)
    assert len(found.changes) == 1


@pytest.mark.parametrize("seed", range(3))
def test_ten_minutes_of_jitter_cause_at_most_one_change(seed: int) -> None:
    rng = random.Random(seed)
    rates = [20.0 * min(1.6, max(0.4, rng.gauss(1.0, 0.2))) for _ in range(600)]
    moments = tuple(Moment(float(second), rate, rate, 5.0) for second, rate in enumerate(rates))
    assert run(Trace(moments, 600.0), fps=5).course(OURS).changes <= 1


@given(st.integers(0, 1000), st.none() | st.floats(20, 200))
@settings(max_examples=8, deadline=None)
def test_nobody_beats_hindsight(seed: int, deadline_ms: float | None) -> None:
    found = run(drive(seed, seconds=20), Limits(deadline_ms=deadline_ms))
    assert {course.name for course in found.courses} == {OURS, STATIC, *(policy.name for policy in POLICIES)}
    for course in found.courses:
        assert len(course.ms) == len(found.at) == 200
        assert (course.ms >= found.best_ms - 1e-9).all(), course.name
        if deadline_ms is not None:
            assert course.ms.max() <= max(deadline_ms, 100.0) + 1e-9
    assert found.segments[0].begin == found.trace.begin
    assert found.segments[-1].end == found.trace.end
    assert sum(len(found.at[segment.frames]) for segment in found.segments) == len(found.at)


@given(st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_the_best_static_split_is_the_best_of_all(seed: int) -> None:
    trace = drive(seed, seconds=15)
    found = run(trace)
    problem = question(links=LINKS[:1])
    splits = [Split(("device",))]
    splits += [Split(("device", "edge1"), (Cut(cut, codec),)) for cut, codec in product(CUTS[:-1], CODECS)]

    def mean(split: Split) -> float:
        here = (moved(problem, LINK, Spot(m.up_mbit, m.rtt_ms), m.down_mbit) for m in trace.moments)
        return float(np.mean([price(one, split).ms for one in here]))

    assert found.course(STATIC).ms.mean() == pytest.approx(min(mean(split) for split in splits), rel=1e-6)


def test_a_late_frame_is_answered_locally() -> None:
    trace = steps([0.01], each_s=5)
    assert run(trace).course("image-upload").ms.max() > 10_000
    assert run(trace, Limits(deadline_ms=300.0)).course("image-upload").ms.max() == pytest.approx(300.0)
    assert run(trace, Limits(deadline_ms=30.0)).course("image-upload").ms.max() == pytest.approx(100.0)


def test_rivals_know_the_link_of_the_frame_before() -> None:
    found = run(steps([40, 0.5], each_s=2), fps=10)
    surgeon = found.course("neurosurgeon")
    assert surgeon.changes == 1
    assert int(np.flatnonzero(surgeon.ran[1:] != surgeon.ran[:-1])[0]) + 1 == 21


def test_three_tiers_take_part() -> None:
    slow_edge = replace(question(), limits=Limits())
    found = replay(world(), slow_edge, facts(), LINK, steps([40, 4], each_s=10), StreamSettings(), fps=5)
    best = plan(moved(question(), LINK, Spot(4.0, 20.0), 4.0)).best
    assert found.segments[1].best == best.split


def test_only_latency_is_replayed_and_not_for_ever() -> None:
    problem = replace(question(), objective=OBJECTIVES["bytes"])
    with pytest.raises(ConfigError, match="leave --objective out"):
        replay(world(), problem, facts(), LINK, steps([1]), StreamSettings())
    with pytest.raises(ConfigError, match="frames are more than"):
        replay(world(), question(), facts(), LINK, steps([1], each_s=1e6), StreamSettings())
