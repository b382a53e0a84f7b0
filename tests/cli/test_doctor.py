"""The doctor names each trap of a broker and of a site, and is silent about what is well."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.cli.conftest import Run
from tests.packets import MESSAGES

from splitbus_cli.findings import Finding, Level, Seen, judge
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.visit import Announced
from splitbus_schemas import messages as m
from splitbus_schemas.acl import acl
from splitbus_schemas.seal_keys import key_id, write_public
from splitbus_schemas.topics import JOB, KEYS, LEASE, STATS, STATUS

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


def test_two_gateways_with_a_lease_are_well_and_told_apart() -> None:
    second = MESSAGES["status"].model_copy(update={"node": "gateway2", "tier": "gateway"}).to_json()
    both = {STATUS.at("home", node="gateway2"): second, LEASE.at("home"): MESSAGES["lease"].to_json()}
    seen = replace(well(), retained=well().retained | both)
    assert worst(seen) == {}
    assert "gateway leads, gateway2 stands by" in {finding.found for finding in judge(seen)}
    released = MESSAGES["lease"].model_copy(update={"state": "released"}).to_json()
    seen = replace(seen, retained=seen.retained | {LEASE.at("home"): released})
    assert worst(seen) == {"gateway": Level.BAD}, "both are ready, and neither leads"


def test_a_gateway_that_is_cut_from_the_other_side_is_told() -> None:
    cut = {"node": "gateway2", "tier": "gateway", "reason": "stands by for gateway; bridge bridge-home is silent"}
    second = {STATUS.at("home", node="gateway2"): MESSAGES["status"].model_copy(update=cut).to_json()}
    seen = replace(well(), retained=well().retained | second | {LEASE.at("home"): MESSAGES["lease"].to_json()})
    assert worst(seen) == {"sides": Level.WARN}


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


CAMERA_KEY, WORKER_KEY = bytes([1]) * 32, bytes([2]) * 32


def sealing(
    *, keys: m.KeyList | None, camera: bytes | None = CAMERA_KEY, worker: bytes | None = WORKER_KEY
) -> list[Finding]:
    """What is said of a site with one camera and one worker, by the keys that they have."""
    retained = {GATEWAY: GATEWAY_READY}
    for node, tier, public in (("cam1", "device", camera), ("edge1", "edge", worker)):
        seal = {"key": key_id(public), "era": "e1"} if public else None
        status = {"state": "ready", "node": node, "boot": "b", "tier": tier, "seal": seal}
        retained[STATUS.at("home", node=node)] = m.NodeStatus.model_validate(status).to_json()
    if keys is not None:
        retained[KEYS.at("home")] = keys.to_json()
    seen = replace(well(), retained=retained, speaking={"cam1", "edge1"})
    return [finding for finding in judge(seen) if finding.what == "sealing"]


def key_list(**roles: bytes) -> m.KeyList:
    nodes = [
        m.NodeKeys(node=node, role="device" if "cam" in node else "worker", keys=[write_public(public)])
        for node, public in roles.items()
    ]
    return m.KeyList(epoch=1, nodes=nodes)


def test_a_site_that_seals_well_and_one_that_seals_nothing() -> None:
    (well,) = sealing(keys=key_list(cam1=CAMERA_KEY, edge1=WORKER_KEY))
    assert (well.level, well.found) == (
        Level.FINE,
        "2 nodes have keys; cameras that are not listed send in clear",
    )
    (nothing,) = sealing(keys=None, camera=None, worker=None)
    assert nothing.level == Level.FINE
    assert "can read activations" in nothing.found


@pytest.mark.parametrize(
    ("given", "found", "remedy"),
    [
        ({"keys": None}, "cam1 seals, but the gateway has published no list", "splitbus seal add cam1"),
        ({"keys": key_list(edge1=WORKER_KEY)}, "cam1 has a key that is not in the gateway's list", "seal add cam1"),
        (
            {"keys": key_list(cam1=CAMERA_KEY, edge1=CAMERA_KEY)},
            "edge1 has a key that is not in the gateway's list",
            "splitbus seal add edge1 --worker",
        ),
        (
            {"keys": key_list(cam1=CAMERA_KEY, edge1=WORKER_KEY), "camera": None},
            "cam1 has a key in the list, but sends in clear, and workers refuse its frames",
            "give it its seal_key",
        ),
        (
            {"keys": key_list(cam1=CAMERA_KEY, edge1=WORKER_KEY), "worker": None},
            "edge1 has a key in the list, but opens no sealed frames",
            "give it its seal_key",
        ),
        (
            {"keys": key_list(cam1=CAMERA_KEY), "worker": None},
            "edge1 opens no sealed frames: cameras that seal do without it",
            "splitbus seal add edge1 --worker",
        ),
        (
            {"keys": key_list(edge1=WORKER_KEY).model_copy(update={"required": True}), "camera": None},
            "cam1 sends in clear, and workers run sealed frames only",
            "splitbus seal add cam1",
        ),
    ],
)
def test_each_way_to_seal_badly_is_named(given: dict[str, Any], found: str, remedy: str) -> None:
    findings = [finding for finding in sealing(**given) if found in finding.found]
    assert findings
    assert findings[0].level == Level.WARN
    assert remedy in findings[0].remedy


def test_two_keys_of_a_node_are_told_until_one_is_retired() -> None:
    both = key_list(cam1=CAMERA_KEY, edge1=WORKER_KEY)
    nodes = [
        both.nodes[0],
        m.NodeKeys(node="edge1", role="worker", keys=[write_public(b"3" * 32), both.nodes[1].keys[0]]),
    ]
    findings = sealing(keys=both.model_copy(update={"nodes": nodes}))
    assert any("splitbus seal retire edge1" in finding.remedy for finding in findings)
