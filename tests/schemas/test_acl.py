"""The generated rules, asked of a real Mosquitto: every user, every topic, both directions, as the registry says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.deployment.client import Client

from splitbus_schemas.acl import acl
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.topics import ECHO, TOPICS, Topic

ROLES: dict[str, set[str]] = {
    "gateway": {"gateway"},
    "operator": {"operators"},
    "edge1": {"workers"},
    "cloud1": {"workers"},
    "cam1": {"device"},
    "cam2": {"device"},
    "stranger": set(),
}
"""Beside being nodes, all of them."""

Devices: TypeAlias = tuple[str, ...] | None

EVERYTHING = "auditor"
"""A user that the generated rules do not know, and the test allows everything."""

FIELDS = {
    "node": tuple(ROLES),
    "device": ("cam1", "cam2", "edge1"),
    "peer": ("edge1",),
    "boot": ("b",),
    "model": ("m",),
    "name": ("n",),
    "bridge": ("b",),
}


def may(user: str, roles: tuple[str, ...], fields: dict[str, str], devices: Devices) -> bool:
    """What the registry says, in other words than the generator's."""
    own_device = fields.get("device") == user and (devices is None or user in devices)
    return (
        "nodes" in roles
        or ("node" in roles and fields.get("node") == user)
        or ("device" in roles and own_device)
        or bool(ROLES[user] & set(roles) - {"device"})
    )


def instances() -> Iterator[tuple[Topic, dict[str, str], str]]:
    for topic in TOPICS:
        for values in itertools.product(*(FIELDS[name] for name in topic.fields)):
            fields = dict(zip(topic.fields, values, strict=True))
            yield topic, fields, topic.at("home", **fields)


CONFIGURATIONS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "as committed": (acl(), None),
    "with the devices named": (acl(devices=["cam1", "cam2"], site="home"), ("cam1", "cam2")),
}


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def rules(request: pytest.FixtureRequest, broker_factory: BrokerFactory) -> Iterator[tuple[Broker, Devices]]:
    text, devices = CONFIGURATIONS[request.param]
    text += f"\nuser {EVERYTHING}\ntopic readwrite #\n"
    with broker_factory(users=dict.fromkeys([*ROLES, EVERYTHING], "word"), acl=text) as broker:
        yield broker, devices


@pytest.mark.broker
@pytest.mark.parametrize("user", ROLES)
def test_a_user_writes_what_the_registry_allows(rules: tuple[Broker, Devices], user: str) -> None:
    """WIRE-6: Mosquitto's answer to a publish at QoS 1."""
    broker, devices = rules
    with Client(user, "word").connected(broker.host, broker.port) as client:
        for topic, fields, name in instances():
            allowed = may(user, topic.writers, fields, devices)
            answer = client.publish(name)
            assert (answer == "Not authorized") is not allowed, f"{user} writes {name}: {answer}"


@pytest.mark.broker
@pytest.mark.parametrize("user", ROLES)
def test_a_user_reads_what_the_registry_allows(rules: tuple[Broker, Devices], user: str) -> None:
    """WIRE-6: it subscribes to everything, and someone who may write all does so."""
    broker, devices = rules
    end = ECHO.at("home", node=user)
    with (
        Client(user, "word").connected(broker.host, broker.port) as reader,
        Client(EVERYTHING, "word").connected(broker.host, broker.port) as writer,
    ):
        reader.subscribe("#")
        for _, _, name in instances():
            if name != end:
                writer.publish(name)
        writer.publish("homeassistant/status")
        writer.publish("splitbus/v1/home/secret")
        writer.publish(end)
        arrived = set()
        while (message := reader.receive()).topic != end:
            arrived.add(message.topic)
    allowed = {name for topic, fields, name in instances() if may(user, topic.readers, fields, devices)}
    assert {name for name in arrived if not name.startswith("$SYS")} == allowed - {end}


@pytest.mark.broker
def test_topics_outside_the_registry_are_nobodys(rules: tuple[Broker, Devices]) -> None:
    """WIRE-7"""
    broker, _ = rules
    for user in ROLES:
        with Client(user, "word").connected(broker.host, broker.port) as client:
            for name in ("x", "splitbus/v1/home", f"splitbus/v1/home/node/{user}", f"splitbus/v2/home/echo/{user}",
                         f"splitbus/v1/home/echo/{user}/x", f"splitbus/v1/home/job/edge1/{user}/x"):  # fmt: skip
                assert client.publish(name) == "Not authorized", f"{user} writes {name}"


@pytest.mark.broker
def test_rules_for_one_site_hold_nowhere_else(broker_factory: BrokerFactory) -> None:
    """WIRE-5"""
    with (
        broker_factory(users={"cam1": "word"}, acl=acl(site="home")) as broker,
        Client("cam1", "word").connected(broker.host, broker.port) as client,
    ):
        assert client.publish("splitbus/v1/home/echo/cam1") != "Not authorized"
        assert client.publish("splitbus/v1/work/echo/cam1") == "Not authorized"


def test_only_the_gateway_writes_orders() -> None:
    """WIRE-6"""
    text = acl(gateway=["g"], operators=["o"], workers=["w"], devices=["d"])
    user = ""
    for line in text.splitlines():
        user = line.removeprefix("user ") if line.startswith("user ") else user
        if " write " in line and "/ctl/" in line:
            assert user == "g"
    assert [line for line in text.splitlines() if line.startswith("user ")] == ["user g", "user o", "user w", "user d"]
    assert "pattern write splitbus/v1/+/job/+/%u" not in text
    assert "topic write splitbus/v1/+/job/+/d" in text


@pytest.mark.parametrize("name", ["", "+", "a/b", "a b", "%u", "#", "a\nuser gateway"])
def test_a_user_name_cannot_smuggle_a_rule(name: str) -> None:
    """WIRE-5"""
    for role in ("gateway", "operators", "workers", "devices"):
        users: dict[str, Any] = {role: [name]}
        with pytest.raises(ConfigError, match="user name"):
            acl(**users)
