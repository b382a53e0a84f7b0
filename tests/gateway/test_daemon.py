"""The gateway daemon with its threads, on a bus in memory: presence, models, blobs, plans, and bad input."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from tests import models
from tests.gateway.scripted import SITE, Node

from splitbus_gateway.config import GatewayConfig, PlannerSettings
from splitbus_gateway.daemon import GatewayDaemon, stream_settings
from splitbus_gateway.registry import Registry
from splitbus_runtime.bus import Delivery, MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.ids import model_key
from splitbus_schemas.packet import decode
from splitbus_schemas.packet_types import BlobPiece
from splitbus_schemas.parts import Assembler

M = TypeVar("M", bound=m.Message)


def retained(hub: MemoryBroker, kind: type[M], topic: str) -> M | None:
    found = hub.retained.get(topic)
    return kind.from_json(found.payload) if found else None


def until(what: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait for something that a thread does."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def test_it_is_seen_on_the_bus_and_says_goodbye(hub: MemoryBroker, small: Registry, tmp_path: Path) -> None:
    status = topics.STATUS.at(SITE, node="gateway")
    config = GatewayConfig(site=SITE, state_dir=tmp_path / "state")
    with GatewayDaemon(config, hub.connect(), hub.connect(), small) as running:
        told = retained(hub, m.NodeStatus, status)
        assert told is not None
        assert (told.state, told.tier, told.boot) == ("ready", "gateway", running.boot)
        stats = topics.STATS.at(SITE, node="gateway")
        until(lambda: (s := retained(hub, m.NodeStats, stats)) and s.broker_rtt_ms is not None)
        assert running.healthy()
        assert running.echo_age_s < 2.5
    told = retained(hub, m.NodeStatus, status)
    assert told is not None
    assert told.state == "stopping"
    assert not running.healthy()
    topic, payload = GatewayDaemon.lost(SITE, "gateway", "g1")
    assert topic == status
    assert m.NodeStatus.from_json(payload).state == "lost"


@pytest.mark.usefixtures("daemon")
def test_models_added_and_removed_are_noticed(hub: MemoryBroker, small: Registry, tmp_path: Path) -> None:
    topic = topics.MODEL.at(SITE, name="small")
    until(lambda: (card := retained(hub, m.ModelCard, topic)) and card.model == small.get("small").model)
    other = Registry(tmp_path / "state", samples=1)  # as `splitbus model add` has it, in a process of its own
    other.add("second", models.save(models.residual(), tmp_path, "second.onnx"))
    until(lambda: topics.MODEL.at(SITE, name="second") in hub.retained, 3)
    other.remove("second")
    until(lambda: topics.MODEL.at(SITE, name="second") not in hub.retained, 3)


def test_cards_of_models_that_are_gone_are_taken_off_the_bus(
    hub: MemoryBroker, small: Registry, tmp_path: Path
) -> None:
    stale = topics.MODEL.at(SITE, name="gone")
    card = small.get("small").card.model_copy(update={"name": "gone"})
    hub.connect().publish(stale, card.to_json(), retain=True)
    config = GatewayConfig(site=SITE, state_dir=tmp_path / "state")
    with GatewayDaemon(config, hub.connect(), hub.connect(), small):
        until(lambda: stale not in hub.retained)


@pytest.mark.usefixtures("daemon")
def test_a_device_gets_a_plan_and_its_slices_can_be_fetched(hub: MemoryBroker, small: Registry) -> None:
    model, whole_ms = small.get("small").model, small.get("small").whole_ms
    cam = Node(hub, "cam1", "device", 200 * whole_ms)
    edge = Node(hub, "edge1", "edge", 10 * whole_ms)
    cam.link("edge1", 500.0, rtt_ms=0.5)
    cam.wants(model)
    topic = topics.PLAN.at(SITE, node="cam1", model=model_key(model))
    until(lambda: (plan := retained(hub, m.Plan, topic)) and not plan.is_local)
    assert edge.work.slices
    pieces = fetch(hub, "edge1", edge.work.slices[0])
    manifest = m.SliceManifest.from_json(bytes(pieces.data))
    assert manifest.model == model
    decision = retained(hub, m.Decision, topics.DECISION.at(SITE, node="cam1", model=model_key(model)))
    assert decision is not None
    assert "small" in (decision.name, decision.why)


def fetch(hub: MemoryBroker, node: str, sha: str) -> BlobPiece:
    """A blob, as a node asks for it."""
    bus, arrived, assembler = hub.connect(), list[BlobPiece](), Assembler()

    def take(delivery: Delivery) -> None:
        arrival = assembler.feed(delivery.payload, 0.0)
        packet = decode(arrival.data) if arrival else None
        if isinstance(packet, BlobPiece):
            arrived.append(packet)

    reply = topics.BLOB_DATA.at(SITE, node=node, boot="b1")
    bus.subscribe(reply, take)
    bus.publish(topics.BLOB_GET.at(SITE, node=node), m.BlobRequest(sha256=sha, reply_to=reply).to_json())
    until(lambda: arrived)
    return arrived[0]


def test_garbage_on_every_topic_is_counted_and_told_and_nothing_ends(daemon: GatewayDaemon, hub: MemoryBroker) -> None:
    fields = {
        "node": "cam1",
        "peer": "edge1",
        "device": "cam1",
        "boot": "b1",
        "name": "x",
        "bridge": "b",
        "model": "0" * 16,
    }
    alerts: list[m.Alert] = []
    bus = hub.connect()
    bus.subscribe(topics.ALERT.at(SITE, node="gateway"), lambda d: alerts.append(m.Alert.from_json(d.payload)))
    watched = ("status", "caps", "stats", "slices", "profile", "link", "plan-state", "stream", "plan", "pin")
    for kind in topics.TOPICS:
        topic = kind.at(SITE, **{name: fields[name] for name in kind.fields})
        bus.publish(topic, b"\xff garbage", retain=kind.retain)
    counters = daemon.alerts.counters
    until(lambda: counters["bad_messages"] + counters["unsigned"] > len(watched))
    assert (counters["bad_messages"], counters["unsigned"]) == (len(watched) - 1, 2), "plan and lease are not even read"
    assert 1 <= len(alerts) <= len(watched)
    assert all(alert.what in ("bad_messages", "unsigned", "blob_refused") for alert in alerts)
    until(lambda: daemon.echo_age_s < 1.0)
    assert daemon.healthy()
    until(lambda: topics.MODEL.at(SITE, name="x") not in hub.retained)


def test_a_registry_that_cannot_be_read_is_told_and_survived(
    daemon: GatewayDaemon, small: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(small, "list", fail)
    until(lambda: daemon.alerts.counters["models_failed"] > 0)
    monkeypatch.undo()
    until(lambda: daemon.echo_age_s < 0.5)
    assert daemon.healthy()


def test_settings_reach_the_planner() -> None:
    planner = PlannerSettings(min_agreement=0.9, codecs=("raw", "q8"), deadline_ms=50.0, min_gain=0.3, dwell_s=7.0)
    settings = stream_settings(planner)
    assert settings.limits.min_agreement == 0.9
    assert settings.limits.codecs == frozenset({"raw", "q8"})
    assert settings.limits.deadline_ms == 50.0
    assert (settings.hysteresis.min_gain, settings.hysteresis.dwell_s) == (0.3, 7.0)
