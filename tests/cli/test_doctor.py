"""The doctor names each trap of a broker and of a site, and is silent about what is well."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.cli.conftest import Run
from tests.packets import MESSAGES

from splitbus_cli.findings import Level, Seen, judge
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.visit import Announced
from splitbus_schemas.acl import acl
from splitbus_schemas.topics import JOB, STATS, STATUS

ANNOUNCED = Announced(2**20, 20, None)
GATEWAY = STATUS.at("home", node="gateway")
EDGE = STATUS.at("home", node="edge1")
GATEWAY_READY = MESSAGES["status"].model_copy(update={"node": "gateway", "tier": "gateway"}).to_json()


def well() -> Seen:
    """A site where all is fine."""
    return Seen(
        ANNOUNCED,
        user="operator",
        tls=True,
        anonymous=False,
        plan="Not authorized",
        nagle_ms=0.1,
        system={"version": "mosquitto version 2.0.18", "connection/bridge-home/state": "1"},
        retained={GATEWAY: GATEWAY_READY, EDGE: MESSAGES["status"].to_json()},
        speaking={"edge1"},
    )


def worst(seen: Seen) -> dict[str, Level]:
    """What is not fine."""
    return {finding.what: finding.level for finding in judge(seen) if finding.level}


def test_a_site_that_is_well_gets_no_remedy() -> None:
    assert worst(well()) == {}
    assert not any(finding.remedy for finding in judge(well()))


@pytest.mark.parametrize(
    ("change", "what", "level"),
    [
        ({"announced": replace(ANNOUNCED, max_packet_bytes=None)}, "packet size", Level.WARN),
        ({"announced": replace(ANNOUNCED, max_packet_bytes=20_000)}, "packet size", Level.WARN),
        ({"announced": replace(ANNOUNCED, retain=False)}, "features", Level.BAD),
        ({"announced": replace(ANNOUNCED, max_qos=0)}, "features", Level.BAD),
        ({"announced": replace(ANNOUNCED, receive_maximum=1)}, "in flight", Level.WARN),
        ({"large": "Packet too large"}, "payload size", Level.BAD),
        ({"nagle_ms": 43.0}, "delay", Level.WARN),
        ({"nagle_ms": None}, "delay", Level.WARN),
        ({"anonymous": True}, "access", Level.WARN),
        ({"plan": ""}, "plans", Level.BAD),
        ({"tls": False}, "encryption", Level.WARN),
        ({"system": {"version": "mosquitto version 2.0.11"}}, "version", Level.WARN),
        ({"system": {"publish/messages/dropped": "17"}}, "dropped", Level.WARN),
        ({"system": {"connection/bridge-home/state": "0"}}, "bridge", Level.BAD),
        ({"speaking": set()}, "node", Level.BAD),
        ({"retained": {}}, "gateway", Level.WARN),
        (
            {"retained": {GATEWAY: GATEWAY_READY, STATUS.at("home", node="gw2"): GATEWAY_READY}},
            "gateway",
            Level.BAD,
        ),
        ({"retained": {GATEWAY: GATEWAY_READY, EDGE: MESSAGES["status-lost"].to_json()}}, "node", Level.WARN),
        ({"retained": {GATEWAY: GATEWAY_READY, EDGE: b"{"}}, "retained", Level.WARN),
        ({"retained": {GATEWAY: GATEWAY_READY, JOB.at("home", node="e", device="d"): b"x"}}, "retained", Level.WARN),
        (
            {
                "retained": {
                    GATEWAY: GATEWAY_READY,
                    STATS.at("home", node="edge1"): MESSAGES["stats"]
                    .model_copy(update={"counters": {"plans_failed": 2}})
                    .to_json(),
                }
            },
            "counter",
            Level.WARN,
        ),
    ],
)
def test_each_trap_is_named_with_a_remedy(change: dict[str, object], what: str, level: Level) -> None:
    seen = replace(well(), **change)  # type: ignore[arg-type] # each case changes another field
    assert worst(seen) == {what: level}
    assert all(finding.remedy for finding in judge(seen) if finding.level)


def found(run: Run, *options: object) -> tuple[int, dict[str, str]]:
    """The exit code, and what the command found by level other than fine."""
    result = run("doctor", "--json", *options)
    return result.exit_code, {
        finding["what"]: finding["level"] for finding in json.loads(result.stdout) if finding["level"] != "fine"
    }


def test_a_broker_with_its_defaults(run: Run, broker_factory: BrokerFactory, site: str) -> None:
    """Anyone may do anything, nothing is announced, Nagle's algorithm is on."""
    with broker_factory("set_tcp_nodelay false", "message_size_limit 100000") as broker:
        code, findings = found(run, "--broker", broker.url, "--site", site)
    assert code == Level.BAD
    assert findings["payload size"] == "bad"
    assert {findings.get(what) for what in ("delay", "access", "plans", "gateway")} == {"warn"}


@pytest.fixture
def guarded(broker_factory: BrokerFactory) -> Iterator[Broker]:
    with broker_factory(users={"operator": "secret", "edge1": "word", "gateway": "w"}, acl=acl()) as broker:
        yield broker


def test_a_guarded_site_with_a_hung_worker(run: Run, guarded: Broker, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    arguments = ("--broker", guarded.url, "--username", "operator", "--password-file", password)
    edge = MqttBus(guarded.host, guarded.port, client_id="edge1", username="edge1", password="word")  # noqa: S106 - a test's
    gateway = MqttBus(guarded.host, guarded.port, client_id="gateway", username="gateway", password="w")  # noqa: S106 - a test's
    for bus, topic, message in ((edge, EDGE, MESSAGES["status"].to_json()), (gateway, GATEWAY, GATEWAY_READY)):
        bus.wait_connected(5)
        bus.publish(topic, message, qos=1, retain=True)
    code, findings = found(run, *arguments)
    assert (code, findings.pop("node")) == (Level.BAD, "bad")
    assert set(findings) <= {"encryption", "version"}
    stop = threading.Event()

    def speak() -> None:
        while not stop.wait(0.3):
            edge.publish(STATS.at("home", node="edge1"), MESSAGES["stats"].to_json(), retain=True)

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        code, findings = found(run, *arguments)
    finally:
        stop.set()
        speaker.join()
        edge.close()
        gateway.close()
    assert code == Level.WARN
    assert set(findings) <= {"encryption", "version"}


def test_no_broker(run: Run) -> None:
    result = run("doctor", "--broker", "mqtt://127.0.0.1:1")
    assert result.exit_code == 1
    assert "cannot connect" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broker_that_refuses_us(run: Run, guarded: Broker) -> None:
    result = run("doctor", "--broker", guarded.url)
    assert result.exit_code == 1
    assert "refused: Not authorized" in result.stderr


def test_for_people(run: Run, broker: Broker, site: str) -> None:
    result = run("doctor", "--broker", broker.url, "--site", site)
    assert "warn  access: anyone may connect without a name\n      do: allow_anonymous false" in result.stdout
    assert "fine  features" in result.stdout
