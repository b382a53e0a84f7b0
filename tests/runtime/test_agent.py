"""A node's presence: what it says of itself, what it makes of orders, and that no message stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.worker.rig import Observer, wait_for
from tests.worker.slices import MODEL, scale_slice

from splitbus_runtime.agent import MAX_ALERTS_PER_SECOND, Agent, Load
from splitbus_runtime.bus import MemoryBroker
from splitbus_runtime.store import BlobStore
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Alert, NodeCaps, NodeProfile, NodeStatus, NodeWork, ProfileRequest
from splitbus_schemas.topics import CAPS, PROFILE, STATUS, WORK

Start = Callable[..., Agent]


@pytest.fixture
def bus() -> MemoryBroker:
    return MemoryBroker(70_000)


@pytest.fixture
def start(bus: MemoryBroker, tmp_path: Path) -> Iterator[Start]:
    agents: list[Agent] = []

    def start_agent(tier: Any = "edge") -> Agent:
        agent = Agent(
            site="t",
            node="w1",
            boot="b1",
            tier=tier,
            control=bus.connect(),
            data=bus.connect(),
            store=BlobStore(tmp_path / "store"),
            threads=1,
        )
        agents.append(agent)
        agent.start()
        return agent

    yield start_agent
    for agent in agents:
        if not agent.stopping:
            agent.stop()


@pytest.fixture
def observer(bus: MemoryBroker) -> Observer:
    return Observer(bus.connect(), site="t", node="w1")


def test_it_says_what_it_is(bus: MemoryBroker, start: Start, observer: Observer) -> None:
    start()
    caps = NodeCaps.from_json(bus.retained[CAPS.at("t", node="w1")].payload)
    assert (caps.node, caps.boot, caps.tier) == ("w1", "b1", "edge")
    assert caps.max_packet_bytes == 70_000
    assert caps.memory_mb > 0
    assert {"raw", "q4"} <= set(caps.codecs)
    assert observer.status[-1].state == "ready"
    assert observer.slices[-1].ready == []


def test_its_will_names_its_boot() -> None:
    topic, payload = Agent.lost("t", "w1", "b1", "edge")
    status = NodeStatus.from_json(payload)
    assert topic == STATUS.at("t", node="w1")
    assert (status.state, status.boot) == ("lost", "b1")


def test_its_heartbeat_comes_back(start: Start, observer: Observer) -> None:
    agent = start()
    assert agent.last_echo == float("-inf")
    wait_for(lambda: time.monotonic() - agent.last_echo < 1, "the echo")
    wait_for(lambda: observer.stats and observer.stats[-1].broker_rtt_ms is not None, "the round trip")


def test_it_loads_what_is_ordered_and_drops_the_rest(start: Start, observer: Observer) -> None:
    agent = start()
    a, b = scale_slice(factor=2.0), scale_slice(factor=3.0)
    for piece in (a, b):
        piece.put(agent.store)
    observer.order(a.id, b.id)
    wait_for(lambda: set(observer.slices[-1].ready) == {a.id, b.id}, "both slices")
    assert any(state.loading for state in observer.slices)
    observer.order(b.id)
    wait_for(lambda: observer.slices[-1].ready == [b.id], "one slice")
    assert agent.shelf.ready == [b.id]


def test_a_device_drops_nothing(start: Start, observer: Observer) -> None:
    agent = start("device")
    a, b = scale_slice(factor=2.0), scale_slice(factor=3.0)
    for piece in (a, b):
        piece.put(agent.store)
    observer.order(a.id)
    wait_for(lambda: observer.slices[-1].ready == [a.id], "the first slice")
    observer.order(b.id)
    wait_for(lambda: set(observer.slices[-1].ready) == {a.id, b.id}, "both")


def test_a_profile_is_published_once(bus: MemoryBroker, start: Start) -> None:
    agent = start()
    piece = scale_slice()
    piece.put(agent.store)
    profiles: list[NodeProfile] = []
    reader = bus.connect()
    reader.subscribe(PROFILE.at("t", node="w1", model="+"), lambda d: profiles.append(NodeProfile.from_json(d.payload)))
    request = ProfileRequest(model=MODEL, cuts=[1], blocks=[piece.id], whole=piece.id)
    for _ in range(2):
        reader.publish(WORK.at("t", node="w1"), NodeWork(profiles=[request]).to_json(), retain=True)
        wait_for(lambda: profiles, "the profile")
    time.sleep(0.1)
    assert len(profiles) == 1
    assert profiles[0].block_ms == [profiles[0].whole_ms]


def test_a_later_round_is_profiled_again(bus: MemoryBroker, start: Start) -> None:
    agent = start()
    piece = scale_slice()
    piece.put(agent.store)
    profiles: list[NodeProfile] = []
    reader = bus.connect()
    reader.subscribe(PROFILE.at("t", node="w1", model="+"), lambda d: profiles.append(NodeProfile.from_json(d.payload)))
    for turn in (0, 2, 1):
        request = ProfileRequest(model=MODEL, cuts=[1], blocks=[piece.id], whole=piece.id, round=turn)
        reader.publish(WORK.at("t", node="w1"), NodeWork(profiles=[request]).to_json(), retain=True)
        time.sleep(0.1)
    wait_for(lambda: profiles and profiles[-1].round == 2, "the profile of the last round asked for")
    time.sleep(0.1)
    assert [found.round for found in profiles] == [0, 2]


def test_slices_do_not_wait_for_a_profile(bus: MemoryBroker, start: Start, observer: Observer) -> None:
    agent = start()
    slow, wanted = scale_slice(factor=2.0), scale_slice(factor=3.0)
    for piece in (slow, wanted):
        piece.put(agent.store)
    request = ProfileRequest(model=MODEL, cuts=list(range(1, 401)), blocks=[slow.id] * 400, whole=slow.id)
    sender, topic = bus.connect(), WORK.at("t", node="w1")
    sender.publish(topic, NodeWork(profiles=[request]).to_json(), retain=True)
    time.sleep(0.2)
    sender.publish(topic, NodeWork(profiles=[request], slices=[wanted.id]).to_json(), retain=True)
    wait_for(lambda: observer.slices[-1].ready == [wanted.id], "the slice")
    key = PROFILE.at("t", node="w1", model=model_key(MODEL))
    assert key not in bus.retained, "the profile was not over when the slice was there"
    wait_for(lambda: key in bus.retained, "the profile, which went on", 60)


def test_a_profile_that_cannot_be_made_is_told(bus: MemoryBroker, start: Start, observer: Observer) -> None:
    agent = start()
    junk = agent.store.put(b"no manifest")
    request = ProfileRequest(model=MODEL, cuts=[1], blocks=[junk], whole=junk)
    bus.connect().publish(WORK.at("t", node="w1"), NodeWork(profiles=[request]).to_json(), retain=True)
    wait_for(lambda: observer.alerts, "the alert")
    alert = Alert.from_json(observer.alerts[-1])
    assert alert.what == "profiles_failed"
    assert "manifest that cannot be read" in alert.reason


def test_a_mistake_of_ours_ends_no_thread(
    start: Start, observer: Observer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agent = start()
    piece = scale_slice()
    piece.put(agent.store)

    def fail(*_args: object) -> None:
        raise ZeroDivisionError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(agent.shelf, "load", fail)
        patch.setattr(agent.links, "tick", fail)
        observer.order(piece.id)
        wait_for(lambda: agent.counters.get("errors", 0) >= 2, "the errors")
    assert "on purpose" in caplog.text
    observer.order(piece.id)
    wait_for(lambda: observer.slices[-1].ready == [piece.id], "the slice")
    seen = len(observer.stats)
    wait_for(lambda: len(observer.stats) > seen, "further statistics")


JUNK = [b"junk", b"{}" * 9, b'{"slices": ["x"]}', b'{"v": 9}', b'{"slices": 3}', b"\xff", b"[1]"]


@pytest.mark.parametrize("junk", JUNK)
def test_an_order_that_is_none_is_counted_and_told(
    bus: MemoryBroker, start: Start, observer: Observer, junk: bytes
) -> None:
    agent = start()
    bus.connect().publish(WORK.at("t", node="w1"), junk)
    assert agent.counters["bad_messages"] == 1
    alert = Alert.from_json(observer.alerts[-1])
    assert alert.topic == WORK.at("t", node="w1")
    assert alert.reason


def test_alerts_are_few_and_counters_exact(start: Start, observer: Observer) -> None:
    agent = start()
    for _ in range(100):
        agent.alert("oddities", "something odd")
    assert agent.counters["oddities"] == 100
    assert len(observer.alerts) <= 2 * MAX_ALERTS_PER_SECOND
    wait_for(lambda: observer.stats and observer.stats[-1].counters.get("oddities") == 100, "the count")


def test_load_is_published(start: Start, observer: Observer) -> None:
    agent = start()
    agent.load = lambda: Load(busy=0.5, queued=3, concurrency=2)
    wait_for(lambda: observer.stats and observer.stats[-1].queued == 3, "the load")
    assert (observer.stats[-1].busy, observer.stats[-1].concurrency) == (0.5, 2)


def test_stop_says_goodbye_and_ends_at_once(start: Start, observer: Observer) -> None:
    agent = start()
    observer.order("ab" * 32)  # which nobody will send
    wait_for(lambda: observer.slices[-1].loading, "the download")
    began = time.monotonic()
    agent.stop("for maintenance")
    assert time.monotonic() - began < 2
    assert (observer.status[-1].state, observer.status[-1].reason) == ("stopping", "for maintenance")


def test_news_of_a_connection_that_come_too_late_do_not_count(
    bus: MemoryBroker, start: Start, observer: Observer
) -> None:
    """The bus tells a newcomer how it is, while its own thread tells that it got better: the older may come last."""
    agent = start()
    agent._on_connection(connected=False)
    assert [status.state for status in observer.status] == ["ready"]
    assert NodeStatus.from_json(bus.retained[STATUS.at("t", node="w1")].payload).state == "ready"
