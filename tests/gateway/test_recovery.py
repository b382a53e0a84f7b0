"""The gateway after mishaps: a broker that forgot, epochs that are lost, plans overwritten, clocks that jump."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.scripted import SITE, Site
from tests.gateway.test_controller import Cast

from splitbus_gateway.clock import LEAP_S, SteadyClock
from splitbus_gateway.controller import FORGET_S
from splitbus_gateway.hysteresis import Settings as Hysteresis
from splitbus_gateway.registry import Registry
from splitbus_gateway.slicing import SliceBook
from splitbus_gateway.stream import StreamSettings
from splitbus_runtime.bus import Delivery, MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.ids import model_key


@pytest.fixture
def cast(book: SliceBook, registry: Registry, tmp_path: Path) -> Cast:
    cast = Cast(Site(MemoryBroker(), book, tmp_path / "gateway"), registry)
    cast.begin()
    return cast


def topic_of(cast: Cast, kind: topics.Topic) -> str:
    return kind.at(SITE, node="cam1", model=model_key(cast.model))


def alerts(cast: Cast, what: str) -> list[str]:
    return [alert.reason for alert in cast.site.said(topics.ALERT) if alert.what == what]


# --- pins


def pin_local(cast: Cast) -> None:
    payload = m.Pin(by="anna").to_json()
    cast.cam.bus.publish(topic_of(cast, topics.PIN), payload, retain=True)
    cast.site.run(1)
    assert cast.plan.is_local


def test_a_pin_that_the_broker_forgot_is_obeyed_no_more(cast: Cast) -> None:
    pin_local(cast)
    del cast.site.broker.retained[topic_of(cast, topics.PIN)]
    cast.site.controller.note_connection(connected=False)
    cast.site.controller.note_connection(connected=True)
    cast.site.run(FORGET_S - 1)
    assert cast.plan.is_local
    cast.site.run(6)
    assert cast.nodes == ["cam1", "edge1"]
    assert cast.plan.reason.startswith("no pin any more")
    assert cast.decision.cause == "pin"
    assert alerts(cast, "pins_forgotten") == ["the pin of cam1 is not retained any more: cam1 is planned freely"]


def test_a_pin_that_is_still_retained_is_obeyed_after_a_reconnect(cast: Cast) -> None:
    pin_local(cast)
    topic = topic_of(cast, topics.PIN)
    cast.site.controller.note_connection(connected=True)
    cast.site.inbox.append(cast.site.broker.retained[topic])
    cast.site.run(2 * FORGET_S)
    assert cast.plan.is_local
    assert alerts(cast, "pins_forgotten") == []


def test_a_pin_is_not_told_twice_as_figures_wander(cast: Cast) -> None:
    pin_local(cast)
    for step in range(4):
        cast.cam.link("edge1", cast.mbit(0.02) * (1 + step / 10), rtt_ms=0.1)
        cast.site.run(11)
    assert cast.decision.why.count("pinned by anna") == 1
    assert "since then" not in cast.decision.why
    assert cast.decision.cause == "pin"


# --- epochs


@pytest.mark.parametrize(("ahead", "plan"), [(500, "p500-ffff"), (0, "px-same-epoch")])
def test_a_device_that_is_ahead_is_told_again_with_a_higher_epoch(cast: Cast, ahead: int, plan: str) -> None:
    ours = cast.plan
    theirs = ours.epoch + ahead
    cast.cam.wants(cast.model, state="ignored", plan=ours.plan, epoch=ours.epoch, reason=f"older than {theirs}")
    cast.cam.wants(cast.model, state="active", plan=plan, epoch=theirs)
    cast.site.run(1)
    assert cast.plan.epoch == theirs + 1
    assert cast.plan.routes == ours.routes
    assert len(alerts(cast, "epochs_lost")) == 1
    cast.cam.wants(cast.model, state="active", plan=cast.plan.plan, epoch=cast.plan.epoch)
    cast.site.run(30)
    assert cast.plan.epoch == theirs + 1


def test_a_plan_that_the_device_still_follows_while_it_loads_the_new_one_is_no_rival(cast: Cast) -> None:
    cast.cam.wants(cast.model, state="active", plan="p1-old", epoch=cast.plan.epoch - 1)
    epoch = cast.plan.epoch
    cast.site.run(3)
    assert cast.plan.epoch == epoch


# --- what others write where only the gateway should


@pytest.mark.parametrize("garbage", [b"{", b"null", b'{"v": 99}', b""])
def test_garbage_on_the_plan_topic_is_written_over(cast: Cast, garbage: bytes) -> None:
    plan, topic = cast.plan, topic_of(cast, topics.PLAN)
    cast.cam.bus.publish(topic, garbage, retain=True)
    cast.site.run(1.5)
    assert cast.plan == plan


def test_a_plan_of_somebody_else_is_written_over(cast: Cast) -> None:
    plan = cast.plan
    foreign = plan.model_copy(update={"plan": "evil", "reason": "because"})
    cast.cam.bus.publish(topic_of(cast, topics.PLAN), foreign.to_json(), retain=True)
    cast.site.run(1.5)
    assert cast.plan == plan


# --- clocks


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -1e9, 1e9])
def test_a_clock_that_jumps_changes_no_plan_and_stops_none(cast: Cast, jump: float) -> None:
    plan = cast.plan
    cast.site.now += jump
    cast.site.run(10)
    assert cast.plan == plan
    assert alerts(cast, "clock_jumps") == ["the clock jumped: plans stay, and waiting goes on as if it had not"]
    cast.edge.status("lost")
    cast.site.run(0.2)
    assert "edge1" not in cast.nodes


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40))
def test_a_steady_clock_never_goes_back_nor_leaps(readings: list[float]) -> None:
    clock, before = SteadyClock(0.0), 0.0
    for reading in readings:
        now = clock.read(reading)
        assert 0 <= now - before <= LEAP_S * (1 + 1e-9)
        before = now


def test_a_steady_clock_goes_with_one_that_is_steady() -> None:
    clock = SteadyClock(100.0)
    assert [clock.read(100.0 + step / 4) for step in range(8)] == [100.0 + step / 4 for step in range(8)]
    assert (clock.read(5000.0), clock.jumped) == (101.75, True)
    assert (clock.read(5001.0), clock.jumped) == (102.75, False)


# --- what cannot be true


def test_absurd_figures_are_refused_with_a_reason_and_the_plan_stays(cast: Cast) -> None:
    plan = cast.plan
    link = topics.LINK.at(SITE, node="cam1", peer="edge1")
    profile = topics.PROFILE.at(SITE, node="cam1", model=model_key(cast.model))
    other = m.NodeProfile(
        node="cam1", boot="b1", model="77" * 32, cuts=[1], block_ms=[1.0], spread_ms=[0.0], whole_ms=1.0, runs=1
    )
    bad = {
        b'{"node":"cam1","peer":"edge1","up_mbit":-5}': link,
        b'{"node":"cam1","peer":"edge1","up_mbit":1e300}': link,
        b'{"node":"cam1","peer":"edge1","rtt_ms":1e8}': link,
        b'{"node":"edge1","peer":"edge1","up_mbit":5}': link,
        other.to_json(): profile,
    }
    for payload, topic in bad.items():
        cast.site.inbox.append(Delivery(topic, payload))
        cast.site.run(1)
    assert cast.plan == plan
    assert len(alerts(cast, "bad_messages")) == len(bad)
    assert cast.site.alerts.counters["bad_messages"] == len(bad)


def test_a_worker_without_profile_and_a_link_never_measured_are_named(cast: Cast) -> None:
    cast.cloud.bus.publish(
        topics.PROFILE.at(SITE, node="cloud1", model=model_key(cast.model)), b"", retain=True
    )  # fmt: skip
    cast.cam.bus.publish(topics.LINK.at(SITE, node="edge1", peer="cloud1"), b"", retain=True)
    cast.site.run(11)
    assert cast.nodes == ["cam1", "edge1"]
    assert "cloud1 has no profile yet" in cast.decision.blocked
    assert [node.whole_ms is None for node in cast.decision.nodes] == [False, True, False]


# --- workers that are lost and come back


def test_a_worker_that_is_lost_again_and_again_is_used_at_each_return(cast: Cast) -> None:
    """The way back is no change of mind: it waits for no dwell, which would be a minute by the sixth time."""
    cast.cloud.status("stopping")
    for _ in range(6):
        cast.edge.status("lost")
        cast.site.run(0.5)
        assert cast.nodes == ["cam1"]
        cast.edge.status("ready")
        cast.site.run(0.5)
        assert cast.nodes == ["cam1", "edge1"]


def test_a_worker_that_is_a_little_better_is_used_at_its_return(
    book: SliceBook, registry: Registry, tmp_path: Path
) -> None:  # fmt: skip
    """Others stood in for it: a gain that would be too small for a change of mind (a fifteenth) is the way back."""
    caution = StreamSettings(hysteresis=Hysteresis(min_gain_ms=0.0, settle_s=1e6))
    cast = Cast(Site(MemoryBroker(), book, tmp_path / "gateway", caution), registry)
    cast.cloud.whole_ms = 10.7 * cast.whole
    cast.begin()
    cast.cam.link("cloud1", cast.mbit(0.02), rtt_ms=0.1)
    cast.site.run(3)
    for _ in range(3):
        cast.edge.status("lost")
        cast.site.run(8)
        assert cast.nodes == ["cam1", "cloud1"]
        cast.edge.status("ready")
        cast.site.run(0.5)
        assert cast.nodes == ["cam1", "edge1"], cast.decision.why


def stream_stats(cast: Cast, *avoided: str) -> None:
    stats = m.StreamStats(
        node="cam1", boot="b1", model=cast.model, plan=cast.plan.plan, epoch=cast.plan.epoch, period_s=1.0, frames=10,
        avoided=list(avoided),
    )  # fmt: skip
    cast.cam.send(topics.STREAM, stats, node="cam1", model=model_key(cast.model))


@pytest.mark.parametrize("full", [True, False])
def test_a_worker_without_room_is_used_as_soon_as_it_has_some(cast: Cast, full: bool) -> None:
    """One that failed for another reason is left alone for its time."""
    edge = cast.edge
    edge.status("lost")
    cast.site.run(1)
    edge.broken, edge.full = True, full
    edge.load()
    edge.status("ready")
    cast.site.run(5)
    assert len(alerts(cast, "workers_failed")) == 1, "it is not tried again and again"
    assert "edge1" not in cast.nodes
    edge.broken = edge.full = False
    edge.load()
    cast.site.run(1)
    assert ("edge1" in cast.nodes) == full


def test_a_worker_that_a_camera_avoids_is_left_at_once_and_used_again_at_once(cast: Cast) -> None:
    stream_stats(cast, "edge1")
    cast.site.run(0.3)
    assert "edge1" not in cast.nodes
    assert "edge1 does not answer cam1" in cast.plan.reason
    assert "edge1 does not answer cam1" in cast.decision.blocked
    cast.site.run(1)
    stream_stats(cast)
    cast.site.run(0.5)
    assert cast.nodes == ["cam1", "edge1"]


def test_a_worker_that_calls_itself_slow_is_left_at_once_and_used_again_once_it_is_well(cast: Cast) -> None:
    """WIRE-71: the way back waits for no dwell, and the worker is believed though no frame went there."""
    cast.site.run(5)
    for _ in range(6):
        cast.edge.status("ready", pace=1000.0)
        cast.site.run(0.2)
        assert "edge1" not in cast.nodes
        assert "edge1 runs slower" in cast.plan.reason
        cast.edge.status("ready")
        cast.site.run(0.2)
        assert cast.nodes == ["cam1", "edge1"]
        assert "edge1 runs faster" in cast.plan.reason


def test_a_slow_worker_that_is_still_the_best_is_used(cast: Cast) -> None:
    cast.site.run(5)
    cast.edge.status("ready", pace=1.3)
    cast.site.run(3)
    assert cast.nodes == ["cam1", "edge1"]


def test_a_worker_that_speaks_after_a_silence_is_planned_with_at_once(cast: Cast) -> None:
    cast.site.silent.add("edge1")
    cast.site.run(8)
    assert "edge1" not in cast.nodes
    cast.edge.stats(0.0)
    cast.site.silent.discard("edge1")
    cast.site.run(0.3)
    assert cast.nodes == ["cam1", "edge1"]


def test_a_link_that_says_the_same_again_is_heard_when_nobody_believed_it(cast: Cast) -> None:
    """A round trip back to what it was: the second report of the very same figure confirms the first."""
    cast.cam.link("edge1", cast.mbit(0.02), rtt_ms=900.0)
    cast.cam.link("edge1", cast.mbit(0.02), rtt_ms=901.0)
    cast.site.run(5)
    assert "edge1" not in cast.nodes
    for _ in range(2):
        cast.cam.link("edge1", cast.mbit(0.02), rtt_ms=0.1)
        cast.site.run(3)
    assert cast.nodes == ["cam1", "edge1"]
