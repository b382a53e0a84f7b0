"""mosquitto/bridge-gateways.conf as shipped, between two brokers as shipped: a gateway on each side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.deployment.site import CLOUD, SITE, TOPIC, Site

from splitbus_schemas.acl import acl
from splitbus_schemas.topics import BEYOND, LEASE

STATE = "$SYS/broker/connection/bridge-home/state"
UPTIME = BEYOND.at(SITE, bridge="bridge-home")
RULES = acl(gateway=["gateway", "gateway2"])


@pytest.fixture(scope="module")
def joined(broker_factory: BrokerFactory, site: Site) -> Iterator[tuple[Broker, Broker]]:
    with (
        broker_factory(setup=site.setup(rules=RULES, bridge="bridge-gateways.acl")) as far,
        broker_factory(setup=site.setup("bridge-gateways.conf", peers={CLOUD: far}, rules=RULES)) as near,
        site.client("gateway").connected(near.host, near.port) as gateway,
    ):
        gateway.subscribe(STATE)
        while gateway.receive().payload != b"1":
            pass
        yield near, far


@pytest.mark.broker
def test_both_gateways_hear_the_uptime_of_the_other_side(joined: tuple[Broker, Broker], site: Site) -> None:
    """Several times, which proves the bridge; and its broker's word on the connection."""
    for broker, user in zip(joined, ("gateway", "gateway2"), strict=True):
        with site.client(user).connected(broker.host, broker.port) as gateway:
            gateway.subscribe(STATE)
            assert gateway.receive().payload == b"1"
            gateway.subscribe(UPTIME)
            heard = [message for message in (gateway.receive() for _ in range(3)) if not message.retain]
            assert len({message.payload for message in heard}) >= 2


@pytest.mark.broker
def test_what_the_leader_says_crosses_both_ways_once_and_retained(joined: tuple[Broker, Broker], site: Site) -> None:
    near, far = joined
    for here, there, user in ((near, far, "gateway"), (far, near, "gateway2")):
        with (
            site.client(user).connected(here.host, here.port) as leader,
            site.client("operator").connected(there.host, there.port) as reader,
            site.client("operator").connected(here.host, here.port) as own,
        ):
            reader.subscribe(LEASE.at(SITE))
            own.subscribe(LEASE.at(SITE))
            reader.rest()
            own.rest()
            leader.publish(LEASE.at(SITE), user.encode(), retain=True)
            leader.publish(f"{TOPIC}/ctl/cam-b/plan/m", b"plan", retain=True)
            assert reader.rest() == [LEASE.at(SITE)]
            assert own.rest() == [LEASE.at(SITE)]
        with site.client("cam-b").connected(there.host, there.port) as camera:
            camera.subscribe(f"{TOPIC}/ctl/cam-b/plan/m")
            assert camera.receive().retain


@pytest.mark.broker
def test_nodes_are_heard_and_served_across(joined: tuple[Broker, Broker], site: Site) -> None:
    """A frame of the far camera for the edge's worker, its answer, and no echo of either."""
    near, far = joined
    with (
        site.client("cam-b").connected(far.host, far.port) as camera,
        site.client("edge1").connected(near.host, near.port) as worker,
        site.client("gateway").connected(near.host, near.port) as gateway,
    ):
        worker.subscribe(f"{TOPIC}/job/edge1/+")
        camera.subscribe(f"{TOPIC}/reply/cam-b/boot")
        gateway.subscribe(f"{TOPIC}/node/cam-b/status")
        camera.publish(f"{TOPIC}/node/cam-b/status", b"ready", retain=True)
        assert gateway.receive().payload == b"ready"
        camera.publish(f"{TOPIC}/job/edge1/cam-b", b"frame")
        assert worker.receive().payload == b"frame"
        worker.publish(f"{TOPIC}/reply/cam-b/boot", b"answer")
        assert camera.receive().payload == b"answer"
        assert camera.rest() == []
