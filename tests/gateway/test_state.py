"""The world as seen on the bus: what is believed, what is refused, and what the planner gets of it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_gateway.facts import ModelFacts, build_problem, wait_ms
from splitbus_gateway.links import HALF_LIFE_S, Links
from splitbus_gateway.problem import Codings, Limits, Problem
from splitbus_gateway.state import WATCHED, NodeView, World
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.ids import model_key

MODEL = "ab" * 32
KEY = model_key(MODEL)


def tell(world: World, topic: str, message: m.Message | bytes, now: float = 0.0, *, retained: bool = False) -> None:
    kind, fields = topics.parse_topic(topic)
    world.apply(kind, fields, message if isinstance(message, bytes) else message.to_json(), now, retained=retained)


def status(node: str, tier: str = "edge", state: str = "ready", boot: str = "b1") -> m.NodeStatus:
    return m.NodeStatus.model_validate({"state": state, "node": node, "boot": boot, "tier": tier})


def caps(node: str, tier: str = "edge") -> m.NodeCaps:
    return m.NodeCaps.model_validate(
        {"node": node, "boot": "b1", "tier": tier, "cores": 1, "memory_mb": 1, "codecs": ["raw", "q8"],
         "max_packet_bytes": 10**6}
    )  # fmt: skip


def profile(node: str, blocks: list[float], boot: str = "b1") -> m.NodeProfile:
    return m.NodeProfile(
        node=node, boot=boot, model=MODEL, cuts=[3, 9][: len(blocks)], block_ms=blocks, spread_ms=[0.0] * len(blocks),
        whole_ms=sum(blocks), runs=7,
    )  # fmt: skip


def at(kind: topics.Topic, **fields: str) -> str:
    return kind.at("home", **fields)


def model() -> ModelFacts:
    shape = (2, 2)
    lossless = np.array([[True, False]] * 2)
    return ModelFacts(
        name="person",
        model=MODEL,
        codings=Codings(
            (0, 3, 9), ("raw", "q8"), np.array([[1000.0, 250.0], [4000.0, 1000.0]]), np.zeros(shape), np.zeros(shape),
            np.ones(shape), lossless,
        ),
        reference_ms=10.0,
        answer_bytes=100.0,
        tensors={0: ("x",), 3: ("y",)},
    )  # fmt: skip


def settled_world() -> World:
    world = World()
    for node, tier in (("cam1", "device"), ("edge1", "edge"), ("cloud1", "cloud")):
        tell(world, at(topics.STATUS, node=node), status(node, tier))
        tell(world, at(topics.CAPS, node=node), caps(node, tier))
        tell(world, at(topics.PROFILE, node=node, model=KEY), profile(node, [4.0, 6.0]))
    report = m.LinkReport(node="cam1", peer="edge1", rtt_ms=2.0, up_mbit=40.0, down_mbit=80.0, confidence=0.9)
    tell(world, at(topics.LINK, node="cam1", peer="edge1"), report)
    return world


def test_the_bus_becomes_a_problem() -> None:
    problem = build_problem(settled_world(), model(), "cam1", 0.0, Limits(), {})
    assert [facts.node for facts in problem.workers] == ["cloud1", "edge1"]
    assert problem.device.elapsed_ms is not None
    assert problem.device.elapsed_ms.tolist() == [0.0, 4.0, 10.0]
    assert problem.links["cam1", "edge1"].up_mbit == pytest.approx(40.0)
    assert ("cam1", "cloud1") not in problem.links
    assert problem.blocked == ()


def test_a_will_of_an_earlier_session_does_not_kill_the_new_one() -> None:
    world = World()
    tell(world, at(topics.STATUS, node="edge1"), status("edge1", boot="b2"))
    tell(world, at(topics.STATUS, node="edge1"), status("edge1", state="lost", boot="b1"))
    assert [view.node for view in world.workers()] == ["edge1"]
    tell(world, at(topics.STATUS, node="edge1"), status("edge1", state="lost", boot="b2"))
    assert world.workers() == []
    assert build_problem(world, model(), "cam1", 0.0, Limits(), {}).blocked == ("edge1 is lost",)


def test_what_is_retained_is_a_sign_of_life_only_once() -> None:
    world, topic = World(), at(topics.STATUS, node="edge1")
    tell(world, topic, status("edge1"), 10.0, retained=True)
    tell(world, at(topics.CAPS, node="edge1"), caps("edge1"), 11.0, retained=True)
    assert world.nodes["edge1"].heard_at == 10.0
    tell(world, topic, status("edge1"), 12.0)
    assert world.nodes["edge1"].heard_at == 12.0


def test_slices_of_an_earlier_boot_are_not_ready() -> None:
    world = World()
    tell(world, at(topics.SLICES, node="edge1"), m.SliceState(node="edge1", boot="b1", ready=["cd" * 32]))
    tell(world, at(topics.STATUS, node="edge1"), status("edge1", boot="b2"))
    assert world.nodes["edge1"].current_slices is None


def test_a_link_reported_by_its_far_end_is_read_the_other_way_round() -> None:
    links = Links()
    links.report(m.LinkReport(node="cloud1", peer="cam1", rtt_ms=9.0, up_mbit=50.0, down_mbit=5.0, confidence=0.5), 0.0)
    facts = links.facts("cam1", "cloud1", 0.0)
    assert facts is not None
    assert (facts.rtt_ms, facts.up_mbit, facts.down_mbit) == pytest.approx((9.0, 5.0, 50.0))
    links.report(m.LinkReport(node="cam1", peer="cloud1", up_mbit=8.0, confidence=0.9), 0.0)
    both = links.facts("cam1", "cloud1", 0.0)
    assert both is not None
    assert (both.rtt_ms, both.up_mbit, both.down_mbit) == pytest.approx((9.0, 8.0, 50.0))


def test_an_old_report_loses_against_a_new_one_and_a_retained_one_is_worth_half() -> None:
    links = Links()
    links.report(m.LinkReport(node="a", peer="b", rtt_ms=1.0, up_mbit=50.0, confidence=0.9), 0.0)
    links.report(m.LinkReport(node="b", peer="a", rtt_ms=1.0, down_mbit=5.0, confidence=0.8), 300.0)
    facts = links.facts("a", "b", 300.0)
    assert facts is not None
    assert facts.up_mbit == pytest.approx(5.0)
    kept = Links()
    kept.report(m.LinkReport(node="a", peer="b", rtt_ms=1.0, up_mbit=50.0, confidence=0.8), 0.0, retained=True)
    assert (found := kept.facts("a", "b", 0.0)) is not None
    assert found.confidence == pytest.approx(0.4)


def uplink(links: Links, mbit: float | None, now: float, *, retained: bool = False) -> float | None:
    """What a further report makes of the uplink a>b."""
    links.report(m.LinkReport(node="a", peer="b", rtt_ms=1.0, up_mbit=mbit, confidence=0.9), now, retained=retained)
    facts = links.facts("a", "b", now)
    assert facts is not None
    return facts.up_mbit


@given(st.lists(st.floats(0.85, 1.15), min_size=1, max_size=50))
def test_jitter_moves_a_link_less_than_it_jitters(samples: list[float]) -> None:
    links = Links()
    seen = [uplink(links, 10 * sample, float(second)) for second, sample in enumerate(samples)]
    assert all(rate is not None and 8.5 <= rate <= 11.5 for rate in seen)


def test_a_step_moves_a_link_at_once_and_a_smaller_one_with_the_second_report() -> None:
    links = Links()
    for second in range(60):
        uplink(links, 50.0 + second % 2, float(second))
    assert uplink(links, 10.0, 60.0) == pytest.approx(10.0)
    for second in range(61, 121):
        uplink(links, 10.0 + second % 2, float(second))
    assert uplink(links, 22.0, 121.0) == pytest.approx(10.5, rel=0.05)
    assert uplink(links, 22.0, 121.1) == pytest.approx(10.5, rel=0.05), "a report that repeats the last is no news"
    assert uplink(links, 23.0, 121.2) == pytest.approx(23.0)


def test_levels_of_another_time_are_not_gone_on_with() -> None:
    links = Links()
    uplink(links, 30.0, 0.0, retained=True)
    assert uplink(links, 20.0, 1.0) == pytest.approx(20.0), "what was retained is of unknown age"
    assert uplink(links, None, 2.0) == pytest.approx(20.0)
    assert uplink(links, 30.0, 3.0 + HALF_LIFE_S) == pytest.approx(30.0), "a minute later it is another link"


def test_frames_of_the_running_plan_correct_the_sizes() -> None:
    world = settled_world()
    plan = m.Plan(
        plan="p1-0000", epoch=1, device="cam1", model=MODEL, name="person", predicted_ms=1.0, reason="",
        head=m.PlanStage(node="cam1", tier="device"), routes=[[m.PlanStage(node="edge1", tier="edge")]],
        cuts=[m.PlanCut(index=3, codec="q8")],
    )  # fmt: skip
    tell(world, at(topics.PLAN, node="cam1", model=KEY), plan)
    stats = m.StreamStats(
        node="cam1", boot="b1", model=MODEL, plan="p1-0000", epoch=1, period_s=1.0, frames=10, cut_bytes=[2000]
    )
    tell(world, at(topics.STREAM, node="cam1", model=KEY), stats)
    sizes = build_problem(world, model(), "cam1", 0.0, Limits(), {}).codings.coded_bytes
    assert sizes[:, 0].tolist() == [1000.0, 4000.0]  # raw does not depend on the scene
    assert sizes[:, 1].tolist() == pytest.approx([500.0, 2000.0])  # twice as large where it ran, so everywhere
    tell(
        world, at(topics.STREAM, node="cam1", model=KEY), stats.model_copy(update={"plan": "p0-old", "cut_bytes": [9]})
    )
    again = build_problem(world, model(), "cam1", 0.0, Limits(), {}).codings.coded_bytes
    assert again.tolist() == sizes.tolist()


def offer(world: World, frames: int, p50_ms: float | None, dropped: int, boot: str = "b1") -> Problem:
    """The question after a second of the camera's frames; `dropped` counts since its start."""
    stats = m.StreamStats(
        node="cam1", boot=boot, model=MODEL, plan="p1", epoch=1, period_s=1.0, frames=frames, p50_ms=p50_ms,
        counters={"dropped": dropped},
    )  # fmt: skip
    tell(world, at(topics.STREAM, node="cam1", model=KEY), stats)
    return build_problem(world, model(), "cam1", 0.0, Limits(), {})


@pytest.mark.parametrize(
    ("frames", "p50_ms", "every_ms"),
    [
        (10, 40.0, 100.0),  # idle six tenths of the time: a clock makes it ask
        (10, 250.0, 100.0),  # two and a half frames under way
        (10, 100.0, None),  # one after the other: a faster way would be asked more often
        (0, None, None),
    ],
)
def test_frames_that_a_clock_asks_for_come_so_far_apart(
    frames: int, p50_ms: float | None, every_ms: float | None
) -> None:
    problem = offer(settled_world(), frames, p50_ms, 0)
    assert (problem.every_ms, problem.frames_per_s) == (every_ms, frames or None)


def test_frames_that_were_dropped_came_too() -> None:
    world = settled_world()
    assert offer(world, 10, 100.0, 7).every_ms is None, "what was dropped before is not of this second"
    problem = offer(world, 6, 166.0, 11)
    assert (problem.frames_per_s, problem.every_ms) == (10.0, 100.0)
    assert offer(world, 4, 100.0, 0, boot="b2").frames_per_s == 7.0, "a new boot counts from zero; half the weight"


def test_jobs_of_others_make_a_job_wait_its_own_do_not() -> None:
    view = NodeView("edge1", busy=0.5, queued=0.0)
    assert wait_ms(view, 10.0, own=0.0) == pytest.approx(5.0)  # M/D/1: 0.5 / (2 x 0.5) x 10
    assert wait_ms(view, 10.0, own=0.5) == 0.0
    view.queued = 3.0
    assert wait_ms(view, 10.0, own=0.0) == pytest.approx(30.0)
    view.busy = 1.0
    assert np.isfinite(wait_ms(view, 10.0, own=0.0))


def test_the_load_that_counts_is_without_the_streams_own() -> None:
    world = settled_world()
    load = m.NodeStats(node="edge1", boot="b1", uptime_s=1.0, busy=0.4)
    tell(world, at(topics.STATS, node="edge1"), load)
    stats = m.StreamStats(
        node="cam1", boot="b1", model=MODEL, plan="p1", epoch=1, period_s=1.0, frames=20,
        steps=[m.Step(what="run", where="edge1", ms=20.0)],
    )  # fmt: skip
    waits = []
    for told in (None, stats):
        if told:
            tell(world, at(topics.STREAM, node="cam1", model=KEY), told)
        problem = build_problem(world, model(), "cam1", 0.0, Limits(), {})
        facts = problem.facts("edge1")
        assert facts is not None
        waits.append(facts.wait_ms)
    assert waits[0] > 3.0
    assert waits[1] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("topic", "message", "reason"),
    [
        (at(topics.STATUS, node="edge1"), status("edge2"), "speaks for edge2"),
        (at(topics.LINK, node="cam1", peer="edge1"), m.LinkReport(node="cam1", peer="cam2"), "speaks for cam2"),
        (at(topics.LINK, node="cam1", peer="cam1"), m.LinkReport(node="cam1", peer="cam1"), "leads nowhere"),
        (
            at(topics.LINK, node="cam1", peer="edge1"),
            m.LinkReport(node="cam1", peer="edge1", up_mbit=5e8),
            "is believed",
        ),
        (
            at(topics.LINK, node="cam1", peer="edge1"),
            m.LinkReport(node="cam1", peer="edge1", rtt_ms=1e8),
            "is believed",
        ),
        (at(topics.LINK, node="cam1", peer="edge1"), b'{"node":"cam1","peer":"edge1","up_mbit":-3}', "up_mbit"),
        (at(topics.PROFILE, node="cam1", model="0" * 16), profile("cam1", [1.0]), "speaks of"),
        (at(topics.PROFILE, node="cam1", model=KEY), profile("cam1", [0.0, 0.0]), "not believed"),
        (at(topics.PROFILE, node="cam1", model=KEY), profile("cam1", [1e8, 1.0]), "not believed"),
        (
            at(topics.PROFILE, node="cam1", model=KEY),
            profile("cam1", [1.0, 2.0]).model_copy(update={"cuts": [9, 3]}),
            "out of order",
        ),
        (
            at(topics.PROFILE, node="cam1", model=KEY),
            profile("cam1", [1.0, 2.0]).model_copy(update={"cuts": [9]}),
            "1 cuts for 2",
        ),
        (
            at(topics.STATS, node="cam1"),
            m.NodeStats(node="cam1", boot="b", uptime_s=1, busy=0, queued=10**9),
            "not believed",
        ),
        (at(topics.ECHO, node="cam1"), b"x", "tells the gateway nothing"),
    ],
)
def test_what_cannot_be_true_is_refused_and_changes_nothing(
    topic: str, message: m.Message | bytes, reason: str
) -> None:
    world = World()
    with pytest.raises(DecodeError, match=reason):
        tell(world, topic, message)
    assert world.nodes == {}
    assert world.streams == {}
    assert world.links.facts("cam1", "edge1", 0.0) is None


FIELDS = {
    "node": "cam1",
    "peer": "edge1",
    "model": KEY,
    "device": "cam1",
    "boot": "b1",
    "name": "person",
    "bridge": "b",
}
TOPICS = [kind.at("home", **{name: FIELDS[name] for name in kind.fields}) for kind in topics.TOPICS]
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(TOPICS),
    st.binary(min_size=1, max_size=60) | json_values.map(lambda value: json.dumps(value).encode()),
)
def test_garbage_is_refused_on_every_topic(topic: str, payload: bytes) -> None:
    world = settled_world()
    before = build_problem(world, model(), "cam1", 0.0, Limits(), {})
    try:
        tell(world, topic, payload)
    except DecodeError:
        after = build_problem(world, model(), "cam1", 0.0, Limits(), {})
        assert (after.links, after.blocked) == (before.links, before.blocked)
    else:
        assert topics.PIN.match(topic)  # a pin has no field that must be there
    assert len(world.nodes) == 3


@given(st.sampled_from([kind for kind in WATCHED if kind.message]), st.data())
def test_a_message_with_one_field_broken_is_refused_or_believed_but_never_an_error(
    kind: topics.Topic, data: st.DataObject
) -> None:
    good: dict[str, m.Message] = {
        "status": status("cam1", "device"),
        "caps": caps("cam1", "device"),
        "stats": m.NodeStats(node="cam1", boot="b1", uptime_s=1, busy=0.5),
        "slices": m.SliceState(node="cam1", boot="b1"),
        "profile": profile("cam1", [1.0, 2.0]),
        "link": m.LinkReport(node="cam1", peer="edge1", rtt_ms=1.0, up_mbit=2.0, confidence=0.5),
        "plan-state": m.PlanState(node="cam1", boot="b1", plan="none", epoch=0, state="active"),
        "stream": m.StreamStats(node="cam1", boot="b1", model=MODEL, plan="p", epoch=0, period_s=1, frames=1),
        "plan": m.Plan(plan="p", epoch=0, device="cam1", model=MODEL, name="x", predicted_ms=1, reason=""),
        "pin": m.Pin(),
    }
    document = json.loads(good[kind.name].to_json())
    document[data.draw(st.sampled_from(sorted(document)))] = data.draw(json_values)
    world = settled_world()
    topic = kind.at("home", **{name: FIELDS[name] for name in kind.fields})
    with contextlib.suppress(DecodeError):
        tell(world, topic, json.dumps(document).encode())
    problem = build_problem(world, model(), "cam1", 1.0, Limits(), {})
    assert problem.device.node == "cam1"


def test_an_empty_message_takes_things_back() -> None:
    world = settled_world()
    tell(world, at(topics.PIN, node="cam1", model=KEY), m.Pin(by="anna"))
    assert build_problem(world, model(), "cam1", 0.0, Limits(), {}).pin is not None
    for kind in WATCHED:
        tell(world, at(kind, **{name: FIELDS[name] for name in kind.fields}), b"")
    problem = build_problem(world, model(), "cam1", 0.0, Limits(), {})
    assert problem.pin is None
    assert problem.device.elapsed_ms is None
    assert problem.links == {}
