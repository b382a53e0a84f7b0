"""What is to blame when there is no plan: by hand, and against planning again without each limit."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from tests.gateway.planning import every_way, limited_problems, three_tiers

from splitbus_gateway.blame import Blame, blame
from splitbus_gateway.planner import plan
from splitbus_gateway.problem import Limits, LinkFacts, Problem
from splitbus_schemas.errors import UnsatisfiableError
from splitbus_schemas.limits import MAX_PACKET_BYTES


def message(problem: Problem) -> str:
    with pytest.raises(UnsatisfiableError) as caught:
        plan(problem, hard_deadline=True)
    return str(caught.value)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (
            {"deadline_ms": 20.0},
            "deadline 20 ms cannot be kept: the fastest way takes 27.9 ms (input q8 on edge1)",
        ),
        (
            {"device_memory_mb": 3.0, "keep_on_device": 1},
            (
                "one of 2 limits must give way: device memory 3 MB cannot be kept: the smallest takes 5.0 MB "
                "(cut 3/q8 on edge1); or keeping the input on the device cannot be kept: the most that can be is "
                "0 blocks (input q8 on edge1)"
            ),
        ),
        (
            {"must_run": frozenset({"edge7"})},
            (
                "order to run edge7 cannot be kept: edge7 is not there; "
                "without it input q8 on edge1 would do, in 27.9 ms"
            ),
        ),
    ],
)
def test_what_is_said_by_hand(limits: dict[str, Any], says: str) -> None:
    assert message(three_tiers(limits=Limits(**limits))) == says


def test_what_can_be_rebuilt_is_blamed_with_the_nearest() -> None:
    limits = Limits(max_rebuilt=0.2, must_run=frozenset({"edge"}))
    problem = three_tiers(limits=limits, rebuilt=np.array([np.nan, 0.6, 0.25]))
    found = {one.limit: one for one in blame(problem)}
    assert set(found) == {"max_rebuilt", "must_run"}
    assert found["max_rebuilt"].nearest == 0.25
    asked = "pictures rebuilt at most 0.2 alike (SSIM) cannot be kept: the least is 0.250 (cut 7"
    assert str(found["max_rebuilt"]).startswith(asked)
    assert plan(replace(problem, limits=replace(limits, max_rebuilt=0.25))).best.split.cuts[0].index == 7
    unknown = {one.limit: str(one) for one in blame(three_tiers(limits=limits))}
    assert "was not measured, add the model with --calibrate PICTURES" in unknown["max_rebuilt"]


def test_agreement_bytes_and_orders_by_hand() -> None:
    problem = three_tiers(
        limits=Limits(must_run=frozenset({"edge"}), min_agreement=1.0, max_mbit=0.55), frames_per_s=10
    )
    found = {one.limit: one for one in blame(problem)}
    assert set(found) == {"must_run", "min_agreement", "max_mbit"}
    assert found["min_agreement"].nearest == pytest.approx(0.99)
    assert found["max_mbit"].nearest == pytest.approx(14e3 * 8e-5)
    assert found["must_run"].nearest is None


def test_packet_limits_are_named() -> None:
    workers = tuple(replace(facts, max_packet_bytes=2000) for facts in three_tiers().workers)
    problem = three_tiers(workers=workers, limits=Limits(deadline_ms=90.0))
    found = {one.limit: one for one in blame(problem)}
    assert set(found) == {"deadline_ms", "packets"}
    assert found["packets"].nearest == 2500.0
    assert workers[0].max_packet_bytes < 2500 < MAX_PACKET_BYTES


def test_limits_that_are_only_together_to_blame_are_named_together() -> None:
    slow = {pair: LinkFacts(200.0, 0.1, 0.1) for pair in three_tiers().links}
    orders = Limits(must_run=frozenset({"edge9", "cloud9"}), deadline_ms=1000.0)
    assert message(three_tiers(links=slow, limits=orders)) == (
        "order to run cloud9 and order to run edge9 cannot be kept, nor one of them without the other: "
        "without them all on cam1 would do, in 100.0 ms"
    )


def test_a_soft_deadline_is_not_to_blame() -> None:
    problem = three_tiers(limits=Limits(deadline_ms=20.0))
    assert not plan(problem).in_time
    assert [one.limit for one in blame(problem)] == ["deadline_ms"]


NOTHING = Limits(min_agreement=-1.0)
ONE_BY_ONE = ("must_run", "must_not_run")
"""Fields whose names are limits of their own."""


def without(problem: Problem, field: str) -> Problem:
    return replace(problem, limits=replace(problem.limits, **{field: getattr(NOTHING, field)}))


def satisfiable(problem: Problem) -> bool:
    return next(every_way(problem, hard_deadline=True), None) is not None


def at_nearest(problem: Problem, found: Blame, slack: float) -> Problem:
    """The problem with the limit at its nearest value, eased a little by a positive slack."""
    assert found.nearest is not None
    sign = -1.0 if found.limit in {"min_agreement", "keep_on_device", "keep_on_site"} else 1.0
    if found.limit.startswith("keep"):
        value: Any = round(found.nearest) - (slack < 0) * round(sign)
    else:
        value = found.nearest + sign * slack * max(1.0, abs(found.nearest))
    return replace(problem, limits=replace(problem.limits, **{found.limit: value}))


@given(limited_problems(share=4))
@settings(max_examples=250, deadline=None)
def test_those_to_blame_are_those_without_which_there_is_a_plan(problem: Problem) -> None:
    assume(not satisfiable(problem))
    found = {one.limit: one for one in blame(problem)}
    for field in (field.name for field in fields(Limits) if field.name not in ONE_BY_ONE):
        assert (field in found) == satisfiable(without(problem, field)), field
    for one in found.values():
        if one.nearest is not None and one.limit not in {*ONE_BY_ONE, "packets"}:
            assert satisfiable(at_nearest(problem, one, 1e-6))
            assert not satisfiable(at_nearest(problem, one, -1e-6))
    said = message(problem)
    assert all(one.asked in said for one in found.values())
    assert found or "nor one of them without the other" in said
