"""What a gateway hears and tells of its bridge, over a bus in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway.scripted import SITE
from tests.gateway.test_daemon import until

from splitbus_gateway.alerts import Alerts
from splitbus_gateway.bridge import GAP_S
from splitbus_gateway.bridge_watch import PATIENCE_S, SETTLED_S, BridgeWatch
from splitbus_gateway.config import GatewayConfig, LeaseSettings
from splitbus_gateway.daemon import GatewayDaemon
from splitbus_gateway.registry import Registry
from splitbus_runtime.bus import Delivery, MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics

STATE = "$SYS/broker/connection/bridge-home/state"
UPTIME = topics.BEYOND.at(SITE, bridge="bridge-home")


def watch(hub: MemoryBroker) -> tuple[BridgeWatch, list[str]]:
    """A bridge that was never heard of, and the alerts about it."""
    told: list[str] = []
    topic = topics.ALERT.at(SITE, node="gateway2")
    hub.connect().subscribe(topic, lambda delivery: told.append(m.Alert.from_json(delivery.payload).reason))
    alerts = Alerts(hub.connect(), site=SITE, node="gateway2", clock=lambda: 0.0)
    return BridgeWatch(alerts, site=SITE, name="bridge-home", now=0.0), told


def test_a_cut_is_told_once_and_its_end_is_told_when_all_has_crossed(hub: MemoryBroker) -> None:
    one, told = watch(hub)
    one.take(Delivery(UPTIME, b"9 seconds", retain=True), 0.0)
    assert not one.look(1.0, "plans stay")
    assert one.trouble == "", "it may still come up"
    one.take(Delivery(UPTIME, b"11 seconds"), 2.0)
    assert not one.look(2.0, "plans stay")
    assert one.look(2.0 + SETTLED_S, "plans stay")
    assert not one.look(3.0, "plans stay"), "once"
    one.take(Delivery(STATE, b"0"), 3.5)
    assert not one.look(3.5, "plans stay")
    assert one.trouble == "bridge bridge-home is down"
    one.take(Delivery(STATE, b"1"), 5.0)
    one.look(5.0, "plans stay")
    one.take(Delivery(UPTIME, b"15 seconds"), 5.1)
    assert not one.look(5.1, "plans stay")
    assert one.look(5.1 + SETTLED_S, "plans stay")
    one.look(5.1 + GAP_S + 0.1, "plans stay")
    assert told == [f"bridge bridge-home is {state}; plans stay" for state in ("down", "silent")]


def test_a_bridge_that_never_carried_is_told_with_what_may_be_missing(hub: MemoryBroker) -> None:
    one, told = watch(hub)
    one.take(Delivery(STATE, b"1"), 0.0)
    one.look(PATIENCE_S, "plans stay")
    assert told == []
    for later in (0.1, 1.0):
        one.look(PATIENCE_S + later, "plans stay")
    (reason,) = told
    assert "`sys_interval 1`" in reason


@pytest.fixture
def leader(hub: MemoryBroker, small: Registry, tmp_path: Path) -> Iterator[GatewayDaemon]:
    """A gateway with a bridge that carries."""
    small.list()
    lease = LeaseSettings(seconds=1.0, side="edge", bridge="bridge-home")
    config = GatewayConfig(site=SITE, state_dir=tmp_path / "state", lease=lease)
    with GatewayDaemon(config, hub.connect(), hub.connect(), Registry(tmp_path / "state", samples=1)) as daemon:
        beat(hub)
        until(lambda: daemon.role.startswith("leads in term"))
        yield daemon


def beat(hub: MemoryBroker) -> None:
    hub.connect().publish(UPTIME, b"17 seconds", retain=True)


@pytest.mark.clocked
def test_a_leader_says_everything_again_when_the_bridge_is_back(leader: GatewayDaemon, hub: MemoryBroker) -> None:
    card = topics.MODEL.at(SITE, name="small")
    until(lambda: card in hub.retained)
    hub.connect().publish(STATE, b"0", retain=True)
    until(lambda: leader.role.endswith("; bridge bridge-home is down"))
    assert leader.leadership.leads(), "a cut ends nobody's lease"
    before = leader.leadership.mandate
    count: list[Delivery] = []
    hub.connect().subscribe(card, count.append)
    hub.connect().publish(STATE, b"1", retain=True)
    beat(hub)
    until(lambda: [one for one in count if not one.retain])
    after = leader.leadership.mandate
    assert before
    assert after
    assert (after.term, after.spell) == (before.term, before.spell + 1)
    until(lambda: "bridge" not in leader.role)
    assert leader.leadership.leader is not None
    assert leader.leadership.leader.side == "edge"
