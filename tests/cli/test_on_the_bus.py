"""Commands against a real Mosquitto: plans, pins, top, tap, and brokers that refuse."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.broker_setup import TLS, ServerTls
from tests.brokers import Broker, BrokerFactory
from tests.cli.conftest import Run, Start
from tests.cli.test_board import KEY, SITE_MESSAGES
from tests.packets import MESSAGES, PACKETS

from splitbus_cli.connection import CONNECT_SECONDS
from splitbus_runtime.bus import Delivery
from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas.messages import Pin, PlanCut
from splitbus_schemas.packet import encode
from splitbus_schemas.topics import ALERT, JOB, PIN


@pytest.fixture
def populated(bus: MqttBus, site: str) -> str:
    """A site with a gateway's and nodes' retained messages."""
    for topic, message in SITE_MESSAGES.items():
        if "/alert" not in topic:
            bus.publish(topic.replace("/home/", f"/{site}/"), message.to_json(), qos=1, retain=True)
    return site


def options(broker: Broker, site: str) -> list[str]:
    return ["--broker", broker.url, "--site", site]


def test_top_once_json(run: Run, broker: Broker, populated: str) -> None:
    result = run("top", "--once", "--json", *options(broker, populated))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [row["node"] for row in found["nodes"]] == ["edge1"]
    assert [row["peer"] for row in found["links"]] == ["edge1"]
    assert [(row["device"], row["cuts"]) for row in found["streams"]] == [("cam1", "17/q8")]
    assert found["broken_messages"] == 0


def test_top_once(run: Run, broker: Broker, populated: str, site: str) -> None:
    printed = run("top", "--once", *options(broker, populated)).stdout
    assert all(part in printed for part in ("edge1", "19.4", "17/q8", "24.0"))
    empty = run("top", "--once", *options(broker, f"{site}-empty")).stdout
    assert "No node has spoken at this site" in empty


def test_top_live_shows_alerts(start: Start, bus: MqttBus, broker: Broker, populated: str) -> None:
    process = start("top", "--json", *options(broker, populated))
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["alerts"] == []
    bus.publish(ALERT.at(populated, node="edge1"), MESSAGES["alert"].to_json())
    deadline = time.monotonic() + 10
    while not json.loads(process.stdout.readline())["alerts"]:
        assert time.monotonic() < deadline


def test_the_environment_names_the_broker(
    run: Run, broker: Broker, populated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITBUS_BROKER", broker.url)
    monkeypatch.setenv("SPLITBUS_SITE", populated)
    assert json.loads(run("top", "--once", "--json").stdout)["nodes"]


def test_plan_show(run: Run, broker: Broker, populated: str) -> None:
    (row,) = json.loads(run("plan", "show", "--json", *options(broker, populated)).stdout)
    assert (row["device"], row["plan"], row["state"], row["pinned"]) == ("cam1", "p12", "active", None)
    printed = run("plan", "show", "cam1", *options(broker, populated)).stdout
    assert all(part in printed for part in ("cam1", "p12", "active", "17/q8", "cam1 > edge1", "beats all on cam1"))
    wrong = run("plan", "show", "cam9", *options(broker, populated))
    assert wrong.exit_code == 1
    assert wrong.stderr == f"splitbus: device 'cam9' of site {populated} has no plan: known are cam1\n"


def test_plan_show_of_an_empty_site(run: Run, broker: Broker, site: str) -> None:
    result = run("plan", "show", *options(broker, site))
    assert (result.exit_code, result.stdout[:9]) == (0, "No device")


def test_plan_explain(run: Run, broker: Broker, populated: str) -> None:
    printed = run("plan", "explain", "cam1", *options(broker, populated)).stdout
    assert "why: the link cam1>edge1 rose to 19.4 Mbit/s" in printed
    (found,) = json.loads(run("plan", "explain", "cam1", "person", "--json", *options(broker, populated)).stdout)
    assert found["decision"]["considered"] == 245
    assert run("plan", "explain", "cam1", "dog", *options(broker, populated)).exit_code == 1


def retained(bus: MqttBus, topic: str, patience_s: float = 3.0) -> list[Delivery]:
    found: list[Delivery] = []
    bus.subscribe(topic, found.append)
    deadline = time.monotonic() + patience_s
    while not found and time.monotonic() < deadline:
        time.sleep(0.02)
    bus.unsubscribe(topic)
    return found


def test_pin_and_unpin(run: Run, bus: MqttBus, broker: Broker, populated: str) -> None:
    topic = PIN.at(populated, node="cam1", model=KEY)
    pinned = run("plan", "pin", "cam1", "person", "--cut", "17", "--codec", "q8", "--node", "edge1",
                 *options(broker, populated))  # fmt: skip
    assert pinned.exit_code == 0, pinned.output
    assert pinned.stdout.startswith("pinned cam1 person: cut 17/q8 on edge1\n")
    (delivery,) = retained(bus, topic)
    assert delivery.retain
    pin = Pin.from_json(delivery.payload)
    assert (pin.cuts, pin.nodes) == ([PlanCut(index=17, codec="q8")], ["edge1"])
    (row,) = json.loads(run("plan", "show", "--json", *options(broker, populated)).stdout)
    assert row["pinned"]["nodes"] == ["edge1"]
    unpinned = run("plan", "unpin", "cam1", "person", *options(broker, populated))
    assert (unpinned.exit_code, unpinned.stdout) == (0, "unpinned cam1 person\n")
    assert retained(bus, topic, 0.5) == []
    again = run("plan", "unpin", "cam1", "person", *options(broker, populated))
    assert (again.exit_code, again.stdout.splitlines()[0]) == (0, "unpinned cam1 person")
    assert again.stdout.splitlines()[1] == f"it was not pinned at site {populated}: pins are none"
    unknown = run("plan", "unpin", "cam1", "dog", *options(broker, populated))
    assert (unknown.exit_code, "model 'dog' is not registered" in unknown.stderr) == (1, True)


def test_pin_local(run: Run, bus: MqttBus, broker: Broker, populated: str) -> None:
    result = run("plan", "pin", "cam1", "person", "--local", *options(broker, populated))
    assert result.stdout.startswith("pinned cam1 person: everything on the device")
    assert "cam1 has not been seen" in result.stdout
    (delivery,) = retained(bus, PIN.at(populated, node="cam1", model=KEY))
    assert Pin.from_json(delivery.payload).cuts == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "either --local or where to cut"),
        (["--local", "--cut", "9"], "either --local or where to cut"),
        (["--local", "--node", "edge1"], "leave --codec and --node out"),
        (["--cut", "10"], "no useful cut 10: it has 0, 9, 17, 48"),
        (["--cut", "9", "--codec", "jpeg"], "codec 'jpeg' is not known"),
        (["--cut", "17", "--cut", "9"], "not in the order of the model"),
        (["--cut", "9", "--node", "a", "--node", "b"], "each cut needs a worker"),
        (["--cut", "9", "--node", "A"], "cannot stand in a topic"),
        (["--cut", "9", "--codec", "q8", "--codec", "q4"], "each cut needs a codec"),
    ],
)
def test_pins_that_no_gateway_would_take(
    run: Run, broker: Broker, populated: str, arguments: list[str], problem: str
) -> None:
    result = run("plan", "pin", "cam1", "person", *arguments, *options(broker, populated))
    assert (result.exit_code, result.stdout) == (1, "")
    assert problem in result.stderr


def test_a_model_that_is_not_registered(run: Run, broker: Broker, populated: str) -> None:
    result = run("plan", "pin", "cam1", "dog", "--local", *options(broker, populated))
    assert result.exit_code == 1
    assert result.stderr == f"splitbus: model 'dog' is not registered at site {populated}: known are person\n"


def test_tap_decodes_packets_and_garbage(start: Start, bus: MqttBus, broker: Broker, populated: str) -> None:
    process = start("tap", "--json", *options(broker, populated))
    assert process.stdout is not None
    process.stdout.readline()  # what is retained comes first: from now on it listens
    topic = JOB.at(populated, node="edge1", device="cam1")
    for payload in (encode(PACKETS["job"]), bytes(range(256)), b""):
        bus.publish(topic, payload)
    lines: list[dict[str, Any]] = []
    while len(lines) < 3:
        line = json.loads(process.stdout.readline())
        lines += [line] * (line["topic"] == topic)
    assert [line["kind"] for line in lines] == ["job/job", "broken", "job"]
    assert lines[0]["frame"] == "cam1/k3x9/4711"
    assert lines[1]["bytes"] == 256


def test_tap_stops_after_so_many(run: Run, bus: MqttBus, broker: Broker, populated: str) -> None:
    result = run("tap", f"splitbus/v1/{populated}/#", "--count", "3", "--broker", broker.url)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 3


@pytest.mark.parametrize("pattern", ["a/#/b", "a+/b", "", "x" * 300])
def test_a_filter_that_mqtt_does_not_know(run: Run, broker: Broker, pattern: str) -> None:
    result = run("tap", pattern, "--broker", broker.url)
    assert result.exit_code == 1
    assert "is not one of MQTT" in result.stderr


@pytest.mark.parametrize("command", [["top", "--once"], ["plan", "show"], ["tap"], ["plan", "unpin", "cam1", "m"]])
def test_no_broker(run: Run, command: list[str]) -> None:
    began = time.monotonic()
    result = run(*command, "--broker", "mqtt://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "splitbus: broker at mqtt://127.0.0.1:1: cannot connect: [Errno 111] Connection refused: "
        "start it, or name another with --broker\n"
    )
    assert time.monotonic() - began < CONNECT_SECONDS


def test_a_broker_url_that_is_none(run: Run) -> None:
    result = run("top", "--once", "--broker", "localhost")
    assert result.exit_code == 1
    assert "the URL has no scheme: write mqtt://host" in result.stderr


def test_tls_with_a_certificate(run: Run, start: Start, broker_factory: BrokerFactory, tmp_path: Path) -> None:
    for command in (("authority",), ("server", "127.0.0.1", "localhost"), ("client", "anna")):
        assert run("certs", *command, "--folder", tmp_path).exit_code == 0
    ca, certificate, key = ((tmp_path / name).read_bytes() for name in ("ca.crt", "server.crt", "server.key"))
    with broker_factory(tls=ServerTls(ca, certificate, key)) as broker:
        url = ["--broker", f"mqtts://{broker.host}:{broker.ports[TLS]}"]
        ours = ["--certfile", tmp_path / "anna.crt", "--keyfile", tmp_path / "anna.key"]
        trusting = ["--cafile", tmp_path / "ca.crt"]
        accepted = run("top", "--once", *url, *trusting, *ours)
        assert accepted.exit_code == 0, accepted.stderr
        untrusting, nameless = start("top", "--once", *url, *ours), start("top", "--once", *url, *trusting)
        for process, problem in ((untrusting, "certificate"), (nameless, "broker at mqtts://")):
            _, stderr = process.communicate(timeout=20)
            assert process.returncode == 1
            assert stderr.startswith("splitbus: ")
            assert problem in stderr
            assert stderr.count("\n") == 1


def test_passwords(run: Run, broker_factory: BrokerFactory, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("secret\n")
    wrong.write_text("guess\n")
    acl = "user anna\ntopic read splitbus/v1/home/#\n"
    with broker_factory(users={"anna": "secret"}, acl=acl) as broker:
        who = ["--broker", broker.url, "--username", "anna"]
        assert run("top", "--once", *who, "--password-file", right).exit_code == 0
        refused = run("top", "--once", *who, "--password-file", wrong)
        assert refused.exit_code == 1
        assert refused.stderr.startswith(f"splitbus: broker at {broker.url}: refused: ")
        assert "check username" in refused.stderr
        missing = run("top", "--once", *who, "--password-file", tmp_path / "none")
        assert "cannot be read: No such file" in missing.stderr


def test_a_pin_that_the_acl_forbids(run: Run, broker_factory: BrokerFactory, tmp_path: Path) -> None:
    word = tmp_path / "word"
    word.write_text("secret\n")
    acl = "user anna\ntopic read splitbus/v1/home/#\nuser gateway\ntopic readwrite splitbus/v1/home/#\n"
    with broker_factory(users={"anna": "secret", "gateway": "g"}, acl=acl) as broker:
        gateway = MqttBus(broker.host, broker.port, client_id="g", username="gateway", password="g")  # noqa: S106 - a test's
        try:
            gateway.wait_connected(5)
            for topic, message in SITE_MESSAGES.items():
                gateway.publish(topic, message.to_json(), qos=1, retain=True)
            who = ["--broker", broker.url, "--username", "anna", "--password-file", word]
            result = run("plan", "pin", "cam1", "person", "--cut", "17", *who)
        finally:
            gateway.close()
    assert result.exit_code == 1
    assert f"did not take splitbus/v1/home/ops/pin/cam1/{KEY}: may user 'anna' write there?" in result.stderr
