"""Who may do what on the bus: a device neither sees another's frames nor gives orders."""

from __future__ import annotations

import pytest
from tests.brokers import Broker
from tests.deployment.site import TOPIC, Site

from splitbus_schemas.topics import parse_topic

pytestmark = pytest.mark.broker

FOR_B = (
    ("gateway", "ctl/cam-b/plan/m"),
    ("gateway", "blob/data/cam-b/boot"),
    ("cam-b", "job/edge1/cam-b"),
    ("cam-b", "node/cam-b/stats"),
    ("cam-b", "echo/cam-b"),
    ("cam-b", "blob/get/cam-b"),
    ("edge1", "reply/cam-b/boot"),
    ("operator", "ops/pin/cam-b/m"),
)
"""Everything that passes between B and the others: who writes it, where."""


def test_a_device_reads_nothing_of_another(production: Broker, site: Site) -> None:
    with (
        site.client("cam-a").connected(production.host, production.port) as spy,
        site.client("operator").connected(production.host, production.port) as operator,
    ):
        filters = {f"{TOPIC}/#", *(f"{TOPIC}/{topic}" for _, topic in FOR_B), f"$share/g/{TOPIC}/#"}
        for topic in filters:
            spy.subscribe(topic)
        operator.subscribe(f"{TOPIC}/#")
        for user, topic in FOR_B:
            with site.client(user).connected(production.host, production.port) as writer:
                assert writer.publish(f"{TOPIC}/{topic}") in {"Success", "No matching subscribers"}
        sent = {f"{TOPIC}/{topic}" for _, topic in FOR_B}
        assert set(operator.rest()) == {topic for topic in sent if "operators" in parse_topic(topic)[0].readers}
        assert spy.rest() == []
        spy.publish(f"{TOPIC}/echo/cam-a")
        assert set(spy.rest()) == {f"{TOPIC}/echo/cam-a"}, "the spy's subscriptions do work for its own topics"


@pytest.mark.parametrize(
    "topic",
    [
        "ctl/cam-a/plan/m",
        "ctl/cam-b/plan/m",
        "ctl/edge1/work",
        "model/m",
        "ops/pin/cam-a/m",
        "node/cam-b/status",
        "job/edge1/cam-b",
        "job/edge1/cam-a/more",
        "reply/cam-b/boot",
        "reply/cam-a/boot",
        "blob/data/cam-b/boot",
        "blob/get/cam-b",
        "echo/cam-b",
    ],
)
def test_a_device_writes_nothing_but_its_own(production: Broker, site: Site, topic: str) -> None:
    with (
        site.client("operator").connected(production.host, production.port) as operator,
        site.client("cam-a").connected(production.host, production.port) as device,
    ):
        operator.subscribe(f"{TOPIC}/#")
        assert device.publish(f"{TOPIC}/{topic}", retain=True) == "Not authorized"
        assert device.publish(f"{TOPIC}/node/cam-a/alert") == "Success"
        assert operator.rest() == [f"{TOPIC}/node/cam-a/alert"]


@pytest.mark.parametrize("topic", ["ctl/cam-a/plan/m", "node/cam-b/status"])
def test_a_last_will_is_bound_by_the_same_rules(production: Broker, site: Site, topic: str) -> None:
    bad, good = site.client("cam-a"), site.client("cam-a")
    bad.raw.will_set(f"{TOPIC}/{topic}", b"x", retain=True)
    good.raw.will_set(f"{TOPIC}/node/cam-a/status", b"lost", retain=True)
    with (
        site.client("operator").connected(production.host, production.port) as operator,
        bad.connected(production.host, production.port),
        good.connected(production.host, production.port),
    ):
        operator.subscribe(f"{TOPIC}/#")
        operator.rest()
        bad.vanish()
        good.vanish()
        assert operator.receive().topic == f"{TOPIC}/node/cam-a/status"
        assert operator.rest() == []


@pytest.mark.parametrize("user", ["operator", "edge1", "cam-a"])
def test_only_the_gateway_plans(production: Broker, site: Site, user: str) -> None:
    with site.client(user).connected(production.host, production.port) as client:
        assert client.publish(f"{TOPIC}/ctl/cam-b/plan/m") == "Not authorized"


def test_a_worker_answers_a_device_and_the_device_reads_it(production: Broker, site: Site) -> None:
    with (
        site.client("cam-a").connected(production.host, production.port) as device,
        site.client("edge1").connected(production.host, production.port) as worker,
    ):
        device.subscribe(f"{TOPIC}/reply/cam-a/boot")
        worker.subscribe(f"{TOPIC}/job/edge1/+")
        device.publish(f"{TOPIC}/job/edge1/cam-a", b"frame")
        assert worker.receive().payload == b"frame"
        worker.publish(f"{TOPIC}/reply/cam-a/boot", b"answer")
        assert device.receive().payload == b"answer"
