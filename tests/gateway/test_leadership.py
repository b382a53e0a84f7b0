"""Gateways with their threads on a bus in memory: one leads, the other waits, and strangers move nothing."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.gateway.scripted import SITE, Node
from tests.gateway.test_daemon import retained, until

from splitbus_gateway.config import GatewayConfig, LeaseSettings
from splitbus_gateway.daemon import GatewayDaemon
from splitbus_gateway.fenced import FencedBus
from splitbus_gateway.leadership import CATCH_UP_S
from splitbus_gateway.registry import Registry
from splitbus_gateway.signing import Signer
from splitbus_runtime.bus import MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.ids import model_key
from splitbus_schemas.terms import round_of, term_in, term_of

pytestmark = pytest.mark.clocked

LEASE = topics.LEASE.at(SITE)
Start = Callable[..., GatewayDaemon]


@pytest.fixture
def start(hub: MemoryBroker, small: Registry, tmp_path: Path) -> Iterator[Start]:
    """Gateways of one site; their state folders are copies of the first one's."""
    running: list[GatewayDaemon] = []
    small.list()

    def begin(node: str, *, models: bool = True, key: bool = True, fresh: bool = True) -> GatewayDaemon:
        folder = tmp_path / ("state" if node == "gateway" else node)
        if not folder.exists():
            shutil.copytree(tmp_path / "state", folder)
            if not models:
                shutil.rmtree(folder / "models")
                (folder / "announced.json").unlink(missing_ok=True)
            if not key:
                (folder / "signing.key").unlink()
        if fresh:
            (folder / "lease.json").unlink(missing_ok=True)
        config = GatewayConfig(site=SITE, node=node, state_dir=folder, lease=LeaseSettings(seconds=1.0))
        daemon = GatewayDaemon(config, hub.connect(), hub.connect(), Registry(folder, samples=1))
        daemon.start()
        running.append(daemon)
        return daemon

    yield begin
    for daemon in running:
        daemon.stop()


def leads(daemon: GatewayDaemon) -> bool:
    return daemon.leadership.leads() and daemon.role.startswith("leads in term")


def counted(daemon: GatewayDaemon, what: str) -> Callable[[], bool]:
    return lambda: daemon.alerts.counters[what] > 0


def told(hub: MemoryBroker, node: str) -> str | None:
    """What its status gives as its role."""
    status = retained(hub, m.NodeStatus, topics.STATUS.at(SITE, node=node))
    return None if status is None else status.reason


def test_one_leads_the_other_waits_and_takes_over_when_it_stops(start: Start, hub: MemoryBroker) -> None:
    one = start("gateway")
    until(lambda: leads(one))
    two = start("gateway2")
    until(lambda: two.role == "stands by for gateway")
    assert not two.leadership.leads()
    assert two.leadership.leader is not None
    card = topics.MODEL.at(SITE, name="small")
    before, term = hub.retained[card].payload, one.leadership.mandate
    one.stop()
    until(lambda: leads(two), 1.0)
    assert term is not None
    assert two.leadership.mandate is not None
    assert two.leadership.mandate.term > term.term
    assert hub.retained[card].payload == before, "the same key, the same card"
    until(lambda: told(hub, "gateway2") == two.role)


def test_a_plan_goes_on_under_the_next_gateway(start: Start, hub: MemoryBroker, small: Registry) -> None:
    model, whole_ms = small.get("small").model, small.get("small").whole_ms
    one = start("gateway")
    until(lambda: leads(one))
    two = start("gateway2")
    cam = Node(hub, "cam1", "device", 200 * whole_ms)
    edge = Node(hub, "edge1", "edge", 10 * whole_ms)
    cam.link("edge1", 500.0, rtt_ms=0.5)
    cam.wants(model)
    topic = topics.PLAN.at(SITE, node="cam1", model=model_key(model))

    def plan() -> m.Plan | None:
        return retained(hub, m.Plan, topic)

    until(lambda: (found := plan()) and not found.is_local)
    first = plan()
    one.stop()
    until(lambda: (found := plan()) and first and found.epoch > first.epoch)
    second = plan()
    assert first
    assert second
    assert round_of(term_of(second.epoch)) == round_of(term_of(first.epoch)) + 1
    assert second.routes == first.routes
    until(lambda: edge.work.term == term_of(second.epoch))
    assert set(edge.work.slices) >= {stage.slice for stage in second.routes[0]}
    assert two.alerts.counters["planning_failed"] == 0


def test_a_stranger_with_another_key_moves_nothing_and_is_told(start: Start, hub: MemoryBroker) -> None:
    one = start("gateway")
    until(lambda: leads(one))
    evil = Signer(Ed25519PrivateKey.generate())
    lease = m.Lease(term=term_in(99, "x"), node="evil", boot="x", serial=1, state="held", seconds=3.0)
    bus = hub.connect()
    bus.publish(LEASE, evil.seal(LEASE, lease), retain=True)
    until(counted(one, "forged"))
    bus.publish(LEASE, lease.to_json(), retain=True)
    until(counted(one, "unsigned"))
    bus.publish(LEASE, b"", retain=True)
    assert leads(one)
    assert one.leadership.mandate is not None
    assert round_of(one.leadership.mandate.term) == 1


def test_a_gateway_without_the_models_says_which_it_lacks_and_keeps_their_cards(
    start: Start, hub: MemoryBroker
) -> None:
    one = start("gateway")
    until(lambda: leads(one) and topics.MODEL.at(SITE, name="small") in hub.retained)
    two = start("gateway2", models=False)
    until(lambda: two.role == "stands by for gateway, and lacks models small")
    assert two.alerts.counters["models_lacking"] == 1
    one.stop()
    until(lambda: leads(two))
    time.sleep(1.2)
    assert topics.MODEL.at(SITE, name="small") in hub.retained
    two.stop()
    again = start("gateway2")
    until(lambda: leads(again))
    time.sleep(1.2)
    assert topics.MODEL.at(SITE, name="small") in hub.retained, "nor does a restart take it for one of its own"
    hub.connect().publish(topics.MODEL.at(SITE, name="small"), b"{}", retain=True)
    until(lambda: topics.MODEL.at(SITE, name="small") not in hub.retained, 3)


def test_two_that_run_under_one_name_are_told(start: Start) -> None:
    one = start("gateway")
    until(lambda: leads(one))
    two = start("gateway")
    until(lambda: leads(two))
    until(counted(one, "twin_gateways"))
    time.sleep(1.5)
    assert leads(two)
    assert not leads(one)


def test_a_node_that_knows_a_higher_term_is_believed_once_a_minute(start: Start, hub: MemoryBroker) -> None:
    one = start("gateway")
    until(lambda: leads(one))
    edge = Node(hub, "edge1", "edge", 1.0)
    for round_ in (40, 70):
        stats = m.NodeStats(node="edge1", boot="b1", uptime_s=1.0, busy=0.0, term=term_in(round_, "x"))
        edge.send(topics.STATS, stats, node="edge1")
        until(lambda: (mandate := one.leadership.mandate) and round_of(mandate.term) == 41)
    time.sleep(1.5)
    assert one.alerts.counters["terms_lost"] == 1
    assert CATCH_UP_S > 10


def test_rounds_are_remembered_over_restarts_and_brokers_that_forget(
    start: Start, hub: MemoryBroker, tmp_path: Path
) -> None:
    one = start("gateway")
    until(lambda: leads(one))
    assert json.loads((tmp_path / "state" / "lease.json").read_text()) == {"round": 1}
    one.stop()
    hub.retained.clear()
    again = start("gateway", fresh=False)
    until(lambda: leads(again))
    assert again.leadership.mandate is not None
    assert round_of(again.leadership.mandate.term) == 2


def test_a_fenced_bus_carries_nothing_for_who_does_not_lead(hub: MemoryBroker) -> None:
    leading = [True]
    bus = FencedBus(hub.connect(), lambda: leading[0])
    assert bus.publish("a", b"1", retain=True)
    leading[0] = False
    assert not bus.publish("a", b"2", retain=True)
    assert (hub.retained["a"].payload, bus.held_back) == (b"1", 1)
    arrived: list[bytes] = []
    bus.subscribe("b", lambda delivery: arrived.append(delivery.payload))
    hub.connect().publish("b", b"3")
    bus.unsubscribe("b")
    hub.connect().publish("b", b"4")
    assert arrived == [b"3"], "it hears all the same"
    assert (bus.connected, bus.max_packet_bytes) == (True, hub.max_packet_bytes)
    bus.close()
    assert not bus.connected
