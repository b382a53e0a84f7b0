"""Predicted against measured: what is believed of a device's report, and stages that can be compared honestly."""

from __future__ import annotations

import pytest

from splitbus_gateway.checks import Stage, beside, note, off, route_of
from splitbus_schemas.messages import Plan, PlanCut, PlanStage, Step, StreamStats

MODEL = "ab" * 32
SLICE = "cd" * 32
PLAN = Plan(
    plan="p7", epoch=7, device="cam1", model=MODEL, name="person", predicted_ms=40.0, reason="",
    head=PlanStage(node="cam1", tier="device", slice=SLICE),
    routes=[[PlanStage(node="edge1", tier="edge", slice=SLICE)]], cuts=[PlanCut(index=3, codec="q8")],
)  # fmt: skip


def step(what: str, where: str, ms: float) -> Step:
    return Step.model_validate({"what": what, "where": where, "ms": ms})


def stats(p50: float | None, *, epoch: int = 7, routes: dict[str, int] | None = None, run: float = 10.0) -> StreamStats:
    return StreamStats(
        node="cam1", boot="b1", model=MODEL, plan=f"p{epoch}", epoch=epoch, period_s=1.0, frames=10, p50_ms=p50,
        routes=routes or {"cam1>edge1": 10}, steps=[step("run", "cam1", run), step("decode", "edge1", 1.0)],
    )  # fmt: skip


def test_the_first_seconds_count_alike_and_later_ones_a_fifth() -> None:
    measured = None
    for p50 in (40.0, 60.0):
        measured = note(measured, PLAN, stats(p50, run=p50 / 4))
    assert measured is not None
    assert (measured.total_ms, measured.seconds) == (50.0, 2)
    assert measured.steps["run", "cam1"] == 12.5
    for _ in range(8):
        measured = note(measured, PLAN, stats(50.0, run=12.5))
    measured = note(measured, PLAN, stats(100.0, run=12.5))
    assert measured is not None
    assert measured.total_ms == pytest.approx(60.0)
    assert off(40.0, measured) == pytest.approx(0.5)
    assert off(0.0, measured) is None
    assert [(s.what, s.where, s.ms) for s in measured.as_steps()] == [("run", "cam1", 12.5), ("decode", "edge1", 1.0)]


@pytest.mark.parametrize(
    "report",
    [
        stats(90.0, epoch=6),
        stats(90.0, epoch=8),
        stats(None),
        stats(90.0, routes={"cam1>edge1": 7, "cam1": 3}),
        stats(90.0, routes={"cam1>cloud1": 10}),
    ],
)
def test_frames_of_another_plan_or_another_way_teach_nothing(report: StreamStats) -> None:
    assert note(None, PLAN, report) is None
    known = note(None, PLAN, stats(40.0))
    assert note(known, PLAN, report) == known


def test_another_plan_begins_anew() -> None:
    known = note(None, PLAN, stats(40.0))
    newer = PLAN.model_copy(update={"plan": "p8", "epoch": 8})
    assert note(known, newer, stats(40.0)) is None
    fresh = note(known, newer, stats(80.0, epoch=8))
    assert fresh is not None
    assert (fresh.total_ms, fresh.seconds) == (80.0, 1)


def test_routes_are_named_by_the_nodes_that_run_something() -> None:
    through = PlanStage(node="edge1", tier="edge", slice=None)
    last = PlanStage(node="cloud1", tier="cloud", slice=SLICE)
    assert route_of(PLAN) == "cam1>edge1"
    assert route_of(PLAN.model_copy(update={"routes": [[through, last]]})) == "cam1>cloud1"
    assert route_of(PLAN.model_copy(update={"routes": [], "head": None})) == "cam1"


PREDICTED = [
    step("run", "cam1", 8.0), step("encode", "cam1", 2.0), step("link", "cam1>edge1", 20.0),
    step("decode", "edge1", 1.0), step("queue", "edge1", 0.0), step("run", "edge1", 4.0),
    step("link", "edge1>cam1", 5.0),
]  # fmt: skip


def test_computing_is_compared_by_node_and_links_by_round() -> None:
    # The device also decodes the answer, which was not predicted but is computing there all the same.
    measured = [
        step("run", "cam1", 11.5), step("run", "edge1", 5.0), step("link", "cam1>edge1>cam1", 30.0),
        step("decode", "cam1", 0.5),
    ]  # fmt: skip
    assert beside(PREDICTED, measured, 50.0) == [
        Stage("compute", "cam1", 10.0, 12.0),
        Stage("compute", "edge1", 5.0, 5.0),
        Stage("queue", "edge1", 0.0, None),
        Stage("link", "cam1>edge1>cam1", 25.0, 30.0),
        Stage("other", "", None, 3.0),
    ]
    assert [stage.ratio for stage in beside(PREDICTED, measured)] == [1.2, 1.0, None, 1.2]


def test_links_of_another_round_are_not_compared() -> None:
    rows = {(stage.what, stage.where): stage for stage in beside(PREDICTED, [step("link", "cam1>cloud1>cam1", 9.0)])}
    assert rows["link", "cam1>edge1"].measured_ms is None
    assert rows["link", "cam1>cloud1>cam1"].predicted_ms is None


def test_nothing_measured_is_nothing_compared() -> None:
    assert all(stage.measured_ms is None for stage in beside(PREDICTED, [], 50.0))
    assert beside([], []) == []
