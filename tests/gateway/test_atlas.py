"""The map of winning plans against asking the planner at every place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.given import LINKS, NODES, PROFILE, question

from splitbus_gateway.atlas import NONE, Atlas, Spot, access_link, axis, draw, moved, today
from splitbus_gateway.offline import Demands, GivenNode, scaled
from splitbus_gateway.planner import plan
from splitbus_gateway.pricing import price
from splitbus_gateway.problem import OBJECTIVES, Limits, Objective, Problem, Split
from splitbus_schemas.errors import ConfigError, UnsatisfiableError

LINK = ("device", "edge1")


def winner_at(problem: Problem, spot: Spot) -> Split | None:
    try:
        return plan(moved(problem, LINK, spot), hard_deadline=True).best.split
    except UnsatisfiableError:
        return None


def check_every_place(problem: Problem, atlas: Atlas) -> None:
    """Each place's winner costs what the planner's own does there: of equals, either will do."""
    for row, rtt in enumerate(atlas.rtts.tolist()):
        for column, rate in enumerate(atlas.rates.tolist()):
            spot = Spot(rate, rtt)
            found = int(atlas.winners[row, column])
            expected = winner_at(problem, spot)
            assert (found == NONE) == (expected is None)
            if expected is not None and atlas.plans[found] != expected:
                here = moved(problem, LINK, spot)
                scores = [price(here, split).score(problem.objective) for split in (atlas.plans[found], expected)]
                assert scores[0] == pytest.approx(scores[1])


@st.composite
def questions(draw: st.DrawFn) -> Problem:
    slowness = draw(st.floats(1, 30)), draw(st.floats(0.5, 5)), draw(st.floats(0.5, 5))
    nodes = [GivenNode(n.node, n.tier, scaled(PROFILE, factor)) for n, factor in zip(NODES, slowness, strict=True)]
    objectives = st.sampled_from([*OBJECTIVES.values(), Objective(latency=1.0, kilobytes=0.3)])
    deadline = draw(st.none() | st.floats(5, 200))
    return question(Demands(limits=Limits(deadline_ms=deadline), objective=draw(objectives)), nodes=nodes)


@given(questions())
@settings(max_examples=25, deadline=None)
def test_the_map_is_what_the_planner_says_at_every_place(problem: Problem) -> None:
    check_every_place(problem, draw(problem, LINK, axis(0.5, 200, 11), axis(1, 300, 7)))


def test_latency_needs_few_questions() -> None:
    atlas = draw(question(), LINK, axis(0.5, 200, 64), axis(1, 300, 32))
    assert atlas.asked < 64 * 32 / 3
    assert len(atlas.plans) >= 3
    assert atlas.share(0) == max(atlas.share(index) for index in range(len(atlas.plans)))
    assert sum(atlas.share(index) for index in range(len(atlas.plans))) == pytest.approx(1.0)


def test_today() -> None:
    problem = question()
    atlas = draw(problem, LINK, axis(0.5, 200, 64), axis(1, 300, 32))
    assert (atlas.today.up_mbit, atlas.today.rtt_ms) == pytest.approx((40.0, 2.0))
    assert atlas.today_plan == plan(problem).best.split
    row, column = atlas.at(atlas.today)
    assert atlas.rates[column] == pytest.approx(40.0, rel=0.05)
    assert atlas.rtts[row] == pytest.approx(2.0, rel=0.1)


def test_where_no_plan_meets_the_deadline_there_is_none() -> None:
    strict = replace(question(), limits=Limits(deadline_ms=50.0))
    atlas = draw(strict, LINK, axis(0.5, 200, 16), axis(1, 300, 16))
    assert 0 < atlas.share(NONE) < 1
    assert atlas.winners[-1, 0] == NONE
    assert atlas.winners[0, -1] != NONE


def test_the_device_s_links_move_together() -> None:
    # Half the rate of the access link halves that to the cloud; its 18 ms beyond the access link stay.
    links = moved(question(), LINK, Spot(20.0, 7.0)).links
    assert (links["device", "edge1"].up_mbit, links["device", "edge1"].down_mbit) == pytest.approx((20.0, 40.0))
    assert (links["device", "cloud1"].up_mbit, links["device", "cloud1"].rtt_ms) == pytest.approx((5.0, 25.0))
    assert links["edge1", "cloud1"] == question().links["edge1", "cloud1"]


def test_the_access_link() -> None:
    assert access_link(question()) == LINK
    assert access_link(question(), "cloud1") == ("device", "cloud1")
    assert today(question(), ("device", "cloud1")).up_mbit == pytest.approx(10.0)
    with pytest.raises(ConfigError, match="no link from device to edge9 is known"):
        access_link(question(), "edge9")
    with pytest.raises(ConfigError, match="give one with --link"):
        access_link(question(links=LINKS[2:]))


@pytest.mark.parametrize("ends", [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (-1.0, 5.0)])
def test_an_axis_rises(ends: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="is no axis"):
        axis(*ends, 8)


def test_the_heart_of_a_region() -> None:
    winners = np.zeros((5, 9), np.int64)
    winners[:, 6:] = 1
    atlas = replace(draw(question(), LINK, axis(1, 2, 9), axis(1, 2, 5)), winners=winners)
    left, right = atlas.heart(0), atlas.heart(1)
    assert (left.row, left.width, left.height) == (2, 6, 5)
    assert 2 <= left.column <= 3
    assert (right.row, right.column, right.width, right.height) == (2, 7, 3, 5)
