"""How fast nodes run now: learned from frames, faded without them, and a profile that stays wrong is taken again."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.scripted import SITE, Node, Site, register
from tests.gateway.test_state import KEY, MODEL, at, model, profile, settled_world, tell

from splitbus_gateway.facts import build_problem
from splitbus_gateway.pacing import note_speeds
from splitbus_gateway.problem import Limits
from splitbus_gateway.slicing import SliceBook
from splitbus_gateway.speed import DRIFT_S, HALF_LIFE_S, MAX_RATIO, MIN_RATIO, PATIENCE_S, Speeds
from splitbus_gateway.state import World
from splitbus_runtime.bus import MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.ids import model_key

PROFILE = profile("edge1", [4.0, 6.0])


def note(
    speeds: Speeds, ratio: float, now: float, *, explained: bool = False, against: m.NodeProfile = PROFILE
) -> None:
    speeds.note("edge1", against, KEY, predicted_ms=10.0, measured_ms=10 * ratio, explained=explained, now=now)


def ratio(speeds: Speeds, now: float) -> float:
    return speeds.ratio("edge1", KEY, now)


def test_without_frames_the_profile_is_believed() -> None:
    assert ratio(Speeds(), 0.0) == 1.0


def test_one_slow_second_changes_little_two_are_believed() -> None:
    speeds = Speeds()
    for second in range(30):
        note(speeds, 1.0, second)
    note(speeds, 4.0, 30.0)
    assert ratio(speeds, 30.0) < 1.1
    note(speeds, 4.0, 31.0)
    assert ratio(speeds, 31.0) == pytest.approx(4.0)
    note(speeds, 1.0, 32.0)
    note(speeds, 1.0, 33.0)
    assert ratio(speeds, 33.0) == pytest.approx(1.0)


@given(st.lists(st.floats(0.9, 1.1), min_size=60, max_size=200))
def test_noise_of_a_tenth_stays_noise(samples: list[float]) -> None:
    speeds = Speeds()
    for second, sample in enumerate(samples):
        note(speeds, sample, second)
        assert 0.89 < ratio(speeds, second) < 1.11
    assert speeds.round("edge1", KEY) == 0


@given(st.lists(st.floats(0.0, 1e9) | st.just(float("inf")), max_size=50))
def test_a_ratio_is_bounded_whatever_is_reported(samples: list[float]) -> None:
    speeds = Speeds()
    for second, sample in enumerate(samples):
        note(speeds, sample, second)
        assert MIN_RATIO * 0.99 <= ratio(speeds, second) <= MAX_RATIO * 1.01


def test_a_ratio_fades_when_no_frames_come() -> None:
    speeds = Speeds()
    for second in range(5):
        note(speeds, 4.0, second)
    assert ratio(speeds, 5.0) == pytest.approx(4.0)
    assert ratio(speeds, 14.0 + HALF_LIFE_S) == pytest.approx(2.0, rel=0.01)
    assert ratio(speeds, 14.0 + 10 * HALF_LIFE_S) == pytest.approx(1.0, abs=0.01)


def drift(speeds: Speeds, begin: float, seconds: float, *, explained: bool = False, value: float = 1.5) -> None:
    for second in range(int(seconds)):
        note(speeds, value, begin + second, explained=explained)


def test_a_drift_that_load_does_not_explain_asks_for_a_profile() -> None:
    speeds = Speeds()
    drift(speeds, 0.0, DRIFT_S)
    assert speeds.round("edge1", KEY) == 0
    drift(speeds, DRIFT_S, 10)
    assert speeds.round("edge1", KEY) == 1
    loaded = Speeds()
    drift(loaded, 0.0, 10 * DRIFT_S, explained=True)
    assert loaded.round("edge1", KEY) == 0
    assert ratio(loaded, 10 * DRIFT_S) == pytest.approx(1.5)


def test_it_is_asked_seldom_and_ever_more_so() -> None:
    speeds = Speeds()
    rounds: list[int] = []
    for second in range(8 * int(PATIENCE_S)):
        note(speeds, 1.5, second)
        if speeds.round("edge1", KEY) > len(rounds):
            rounds.append(second)
    gaps = [later - earlier for earlier, later in pairwise(rounds)]
    assert gaps == [PATIENCE_S, 2 * PATIENCE_S, 4 * PATIENCE_S][: len(gaps)]
    assert len(gaps) >= 2


def test_a_new_profile_begins_anew() -> None:
    speeds = Speeds()
    drift(speeds, 0.0, 10, value=4.0)
    note(speeds, 1.0, 10.0, against=PROFILE.model_copy(update={"round": 1}))
    assert ratio(speeds, 10.0) == pytest.approx(1.0)


def test_a_node_is_believed_when_it_calls_itself_slow_and_when_it_is_well() -> None:
    speeds = Speeds()
    for second in range(30):
        note(speeds, 1.0, second)
    speeds.tell("edge1", 10.0, 30.0)
    assert speeds.is_slow("edge1")
    assert ratio(speeds, 30.0) == pytest.approx(10.0)
    for second in range(31, 35):
        note(speeds, 12.0, second)
    assert ratio(speeds, 35.0) == pytest.approx(12.0), "frames that go on tell more"
    speeds.tell("edge1", None, 40.0)
    assert not speeds.is_slow("edge1")
    assert ratio(speeds, 40.0) == pytest.approx(1.0)


def test_once_it_is_well_it_is_as_far_off_its_profile_as_before() -> None:
    speeds = Speeds()
    for second in range(600):
        note(speeds, 1.4, second)
    for second in range(600, 603):
        note(speeds, 14.0, second)
    speeds.tell("edge1", 10.0, 603.0)
    assert ratio(speeds, 603.0) == pytest.approx(14.0, rel=0.1)
    speeds.tell("edge1", None, 700.0)
    assert ratio(speeds, 700.0) == pytest.approx(1.4, rel=0.05)


def test_what_frames_say_after_that_is_heard() -> None:
    speeds = Speeds()
    speeds.tell("edge1", 10.0, 0.0)
    speeds.tell("edge1", None, 5.0)
    for second in range(6, 9):
        note(speeds, 4.0, second)
    assert ratio(speeds, 9.0) == pytest.approx(4.0)


@given(
    st.lists(
        st.tuples(st.none() | st.floats(1.0, 1e9) | st.floats(0.0, 1e9).map(lambda x: -x), st.floats(0.0, 30.0)),
        max_size=80,
    )
)
def test_whatever_is_told_and_measured_the_ratio_is_bounded(events: list[tuple[float | None, float]]) -> None:
    """A negative figure stands for a measured ratio, others for what the node says itself."""
    speeds, now = Speeds(), 0.0
    for event, later in events:
        now += later
        if event is not None and event <= 0:
            note(speeds, -event, now)
        else:
            speeds.tell("edge1", event, now)
        assert MIN_RATIO * 0.99 <= ratio(speeds, now) <= MAX_RATIO * 1.01


# From the bus to the planner


def plan(*nodes: str, cut: int = 3, codec: str = "raw") -> m.Plan:
    routes = [[m.PlanStage(node=node, tier="edge") for node in nodes]] if nodes else []
    return m.Plan(
        plan="p1", epoch=1, device="cam1", model=MODEL, name="person", predicted_ms=10.0, reason="",
        head=m.PlanStage(node="cam1", tier="device") if nodes else None, routes=routes,
        cuts=[m.PlanCut(index=cut, codec=codec)] if nodes else [],
    )  # fmt: skip


def report(epoch: int = 1, frames: int = 10, route: str = "cam1>edge1", **steps: float) -> m.StreamStats:
    """Steps as `run_edge1=12.0`."""
    found = [m.Step.model_validate(dict(zip(("what", "where"), name.split("_"), strict=True)) | {"ms": ms})
             for name, ms in steps.items()]  # fmt: skip
    return m.StreamStats(
        node="cam1", boot="b1", model=MODEL, plan="p1", epoch=epoch, period_s=1.0, frames=frames,
        routes={route: frames}, steps=found,
    )  # fmt: skip


def hear(world: World, reports: list[m.StreamStats]) -> None:
    for second, stats in enumerate(reports):
        tell(world, at(topics.STREAM, node="cam1", model=KEY), stats, float(second))
        note_speeds(world, model(), "cam1", float(second))
        note_speeds(world, model(), "cam1", float(second))  # heard once, however often it is looked at


def elapsed(world: World, node: str, now: float = 5.0) -> list[float]:
    facts = build_problem(world, model(), "cam1", now, Limits(), {}).facts(node)
    assert facts is not None
    assert facts.elapsed_ms is not None
    return [round(float(ms), 2) for ms in facts.elapsed_ms]


def test_frames_scale_the_profiles_of_the_nodes_that_ran_them() -> None:
    world = settled_world()
    tell(world, at(topics.PLAN, node="cam1", model=KEY), plan("edge1"))
    hear(world, [report(run_cam1=4.0, run_edge1=18.0)] + [report(run_cam1=4.0, run_edge1=18.0) for _ in range(4)])
    assert elapsed(world, "cam1") == [0.0, 4.0, 10.0]
    assert elapsed(world, "edge1") == [0.0, 12.0, 30.0]
    assert elapsed(world, "cloud1") == [0.0, 4.0, 10.0]


def test_the_first_report_of_a_plan_may_be_of_two_plans() -> None:
    world = settled_world()
    tell(world, at(topics.PLAN, node="cam1", model=KEY), plan("edge1"))
    hear(world, [report(run_cam1=40.0, run_edge1=60.0)])
    assert elapsed(world, "edge1") == [0.0, 4.0, 10.0]
    hear(world, [report(epoch=0, run_cam1=40.0, run_edge1=60.0)] * 3)
    assert elapsed(world, "edge1") == [0.0, 4.0, 10.0]


def test_frames_that_went_another_way_tell_nothing_of_the_plans_nodes() -> None:
    world = settled_world()
    tell(world, at(topics.PLAN, node="cam1", model=KEY), plan("edge1"))
    hear(world, [report(route="cam1>cloud1", run_cam1=4.0, run_edge1=60.0) for _ in range(5)])
    assert elapsed(world, "edge1") == [0.0, 4.0, 10.0]


def test_what_codecs_cost_inside_a_slice_is_no_slowness() -> None:
    """An 8-bit codec's nodes run within the slices: predicted as encoding, measured as running."""
    world, facts = settled_world(), model()
    facts.codings.encode_ms[1, 1] = 2.0
    tell(world, at(topics.PLAN, node="cam1", model=KEY), plan("edge1", codec="q8"))
    for second in range(5):
        stats = report(run_cam1=5.5, encode_cam1=0.5, run_edge1=6.0)
        tell(world, at(topics.STREAM, node="cam1", model=KEY), stats, float(second))
        note_speeds(world, facts, "cam1", float(second))
    assert elapsed(world, "cam1") == [0.0, 4.0, 10.0]


def test_a_device_that_runs_the_model_in_one_piece_is_priced_by_its_own_file() -> None:
    world = settled_world()
    slower = profile("cam1", [4.0, 6.0]).model_copy(update={"local_ms": 30.0})
    tell(world, at(topics.PROFILE, node="cam1", model=KEY), slower)
    assert elapsed(world, "cam1") == [0.0, 4.0, 30.0]
    hear(world, [report(route="cam1", run_cam1=30.0) for _ in range(5)])
    assert elapsed(world, "cam1") == [0.0, 4.0, 30.0]
    hear(world, [report(route="cam1", run_cam1=60.0) for _ in range(5)])
    assert elapsed(world, "cam1") == [0.0, 8.0, 60.0]


def test_a_removed_node_is_forgotten() -> None:
    world = settled_world()
    tell(world, at(topics.PLAN, node="cam1", model=KEY), plan("edge1"))
    hear(world, [report(run_cam1=4.0, run_edge1=60.0) for _ in range(5)])
    tell(world, at(topics.STATUS, node="edge1"), b"")
    assert world.speeds.ratio("edge1", KEY, 5.0) == 1.0
    world.speeds.tell("edge1", 9.0, 5.0)
    tell(world, at(topics.STATUS, node="edge1"), b"")
    assert not world.speeds.is_slow("edge1")


def test_a_node_that_drifts_is_ordered_to_profile_again(tmp_path: Path) -> None:
    registry = register(tmp_path, "person")
    site = Site(MemoryBroker(), SliceBook(registry), tmp_path)
    person = registry.get("person").model
    cam = Node(site.broker, "cam1", "device", 200.0)
    cam.wants(person)
    site.run(3)
    world, key = site.controller.world, model_key(person)
    view = world.nodes["cam1"]
    assert view.has_fresh_profile(person, tuple(view.profiles[key].cuts))
    for second in range(60):
        world.speeds.note(
            "cam1", view.profiles[key], key, predicted_ms=10.0, measured_ms=20.0, explained=False, now=float(second)
        )  # fmt: skip
    site.run(3)
    (request,) = m.NodeWork.from_json(site.broker.retained[topics.WORK.at(SITE, node="cam1")].payload).profiles
    assert request.round == 1
    assert request.anchors
