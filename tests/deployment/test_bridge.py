"""mosquitto/bridge.conf as shipped, between two brokers with mosquitto.conf as shipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.broker_setup import PRODUCTION
from tests.brokers import Broker, BrokerFactory
from tests.deployment.client import Client, request
from tests.deployment.site import CLOUD, SITE, TOPIC, Site

from splitbus_runtime.bus import matches
from splitbus_schemas.topics import TOPICS

pytestmark = pytest.mark.broker

NODE_OF = {"reply": "cam-a"}
"""A cloud worker asks nobody, so replies are for others."""

CROSSES = (
    dict.fromkeys(("status", "caps", "stats", "health", "alert", "slices", "profile", "link"), "in")
    | dict.fromkeys(("plan-state", "stream", "reply", "blob-get"), "in")
    | dict.fromkeys(("plan", "decision", "work", "peers", "keys", "job", "blob-data"), "out")
)
"""Not the models' cards and operators' pins, which it does not read; nor its heartbeat, which tries its own broker."""

STATE = "$SYS/broker/connection/bridge-home/state"


@pytest.fixture(scope="module")
def bridged(broker_factory: BrokerFactory, site: Site) -> Iterator[tuple[Broker, Broker]]:
    """The edge's broker and the cloud's, joined."""
    with (
        broker_factory(setup=site.setup()) as cloud,
        broker_factory(setup=site.setup("bridge.conf", peers={CLOUD: cloud})) as edge,
        site.client("operator").connected(edge.host, edge.port) as operator,
    ):
        operator.subscribe(STATE)
        wait_for_state(operator, b"1")
        yield edge, cloud


def wait_for_state(operator: Client, state: bytes) -> None:
    while operator.receive().payload != state:
        pass


@pytest.mark.parametrize("size", [0, 300, 1_000_000])
def test_a_request_and_its_answer_keep_every_property(bridged: tuple[Broker, Broker], site: Site, size: int) -> None:
    edge, cloud = bridged
    with (
        site.client("cam-a").connected(edge.host, edge.port) as device,
        site.client("cloud1").connected(cloud.host, cloud.port) as worker,
    ):
        worker.subscribe(f"{TOPIC}/job/cloud1/+")
        device.subscribe(f"{TOPIC}/reply/cam-a/boot")
        frame = bytes(range(256)) * (size // 256)
        device.publish(
            f"{TOPIC}/job/cloud1/cam-a",
            frame,
            properties=request(f"{TOPIC}/reply/cam-a/boot", b"frame-7", plan="12", traceparent="00-a-b-01"),
        )
        job = worker.receive()
        asked: Any = job.properties
        assert job.payload == frame
        assert asked.ResponseTopic == f"{TOPIC}/reply/cam-a/boot"
        assert asked.CorrelationData == b"frame-7"
        assert asked.UserProperty == [("plan", "12"), ("traceparent", "00-a-b-01")]

        worker.publish(asked.ResponseTopic, frame[::-1], properties=request("", asked.CorrelationData, plan="12"))
        reply = device.receive()
        answered: Any = reply.properties
        assert reply.payload == frame[::-1]
        assert answered.CorrelationData == b"frame-7"
        assert answered.UserProperty == [("plan", "12")]


def test_orders_and_state_cross_retained(bridged: tuple[Broker, Broker], site: Site) -> None:
    edge, cloud = bridged
    with (
        site.client("gateway").connected(edge.host, edge.port) as gateway,
        site.client("operator").connected(cloud.host, cloud.port) as watcher,
        site.client("cloud1").connected(cloud.host, cloud.port) as worker,
    ):
        watcher.subscribe(f"{TOPIC}/ctl/#")
        gateway.subscribe(f"{TOPIC}/node/cloud1/#")
        gateway.publish(f"{TOPIC}/ctl/cloud1/work", b"work", retain=True)
        assert watcher.receive().payload == b"work"
        worker.publish(f"{TOPIC}/node/cloud1/status", b"online", retain=True)
        assert gateway.receive().payload == b"online"
    with (
        site.client("gateway").connected(edge.host, edge.port) as late_gateway,
        site.client("cloud1").connected(cloud.host, cloud.port) as late_worker,
    ):
        late_gateway.subscribe(f"{TOPIC}/node/cloud1/status")
        assert late_gateway.receive().retain
        late_worker.subscribe(f"{TOPIC}/ctl/cloud1/work")
        assert late_worker.receive().retain


def test_slices_are_asked_for_and_fetched_across(bridged: tuple[Broker, Broker], site: Site) -> None:
    edge, cloud = bridged
    with (
        site.client("gateway").connected(edge.host, edge.port) as gateway,
        site.client("cloud1").connected(cloud.host, cloud.port) as worker,
    ):
        gateway.subscribe(f"{TOPIC}/blob/get/+")
        worker.subscribe(f"{TOPIC}/blob/data/cloud1/boot")
        worker.publish(f"{TOPIC}/blob/get/cloud1", b"want")
        assert gateway.receive().payload == b"want"
        gateway.publish(f"{TOPIC}/blob/data/cloud1/boot", bytes(192 * 1024))
        assert len(worker.receive().payload) == 192 * 1024


def test_what_concerns_the_edge_alone_stays_there(bridged: tuple[Broker, Broker], site: Site) -> None:
    edge, cloud = bridged
    with (
        site.client("operator").connected(cloud.host, cloud.port) as watcher,
        site.client("cam-b").connected(edge.host, edge.port) as device,
        site.client("gateway").connected(edge.host, edge.port) as gateway,
        site.client("edge1").connected(edge.host, edge.port) as worker,
    ):
        watcher.subscribe(f"{TOPIC}/job/#")
        watcher.subscribe(f"{TOPIC}/node/cam-b/#")
        watcher.subscribe(f"{TOPIC}/reply/#")
        watcher.subscribe(f"{TOPIC}/blob/#")
        device.publish(f"{TOPIC}/job/edge1/cam-b")
        device.publish(f"{TOPIC}/node/cam-b/status")
        device.publish(f"{TOPIC}/blob/get/cam-b")
        gateway.publish(f"{TOPIC}/blob/data/cam-b/boot")
        worker.publish(f"{TOPIC}/reply/cam-b/boot")
        device.publish(f"{TOPIC}/job/cloud1/cam-b")
        assert watcher.rest() == [f"{TOPIC}/job/cloud1/cam-b"]


def test_a_message_crosses_once_and_does_not_echo(bridged: tuple[Broker, Broker], site: Site) -> None:
    edge, cloud = bridged
    topic = f"{TOPIC}/reply/cam-b/boot"  # seen from the edge, its own workers write there as well
    with (
        site.client("operator").connected(edge.host, edge.port) as here,
        site.client("operator").connected(cloud.host, cloud.port) as there,
        site.client("cloud1").connected(cloud.host, cloud.port) as worker,
    ):
        here.subscribe(topic)
        there.subscribe(topic)
        worker.publish(topic)
        assert here.rest() == [topic]
        assert there.rest() == [topic]


def test_the_edge_learns_that_the_cloud_is_gone(broker_factory: BrokerFactory, site: Site) -> None:
    with (
        broker_factory(setup=site.setup()) as cloud,
        broker_factory(setup=site.setup("bridge.conf", peers={CLOUD: cloud})) as edge,
        site.client("operator").connected(edge.host, edge.port) as operator,
    ):
        operator.subscribe(STATE)
        wait_for_state(operator, b"1")
        cloud.kill()
        wait_for_state(operator, b"0")


def test_the_clouds_acl_grants_exactly_what_crosses() -> None:
    conf, acl = ((PRODUCTION / name).read_text().splitlines() for name in ("bridge.conf", "bridge.acl"))
    access = {"in": "read", "out": "write"}
    crossing = [line.split() for line in conf if line.startswith("topic ")]
    granted = {line for line in acl if line.startswith("topic ") and "$SYS" not in line}
    assert granted == {f"topic {access[direction]} {topic}" for _, topic, direction, _ in crossing}


def test_all_that_a_cloud_worker_writes_and_reads_crosses_and_no_more() -> None:
    """By the topic registry: what it tells goes in, orders and jobs for it go out."""
    crossing = [
        line.split()[1:3] for line in (PRODUCTION / "bridge.conf").read_text().splitlines() if "topic " in line[:6]
    ]
    for kind in TOPICS:
        topic = kind.at(SITE, **dict.fromkeys(kind.fields, "cam-a") | {"node": NODE_OF.get(kind.name, "cloud1")})
        ways = [direction for pattern, direction in crossing if matches(pattern, topic)]
        assert ways == ([CROSSES[kind.name]] if kind.name in CROSSES else []), topic
