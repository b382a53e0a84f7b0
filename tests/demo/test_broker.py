"""Both brokers start, carry what the bus needs, and end with their starter."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt  # noqa: TID251 - the reference
import pytest
from paho.mqtt.enums import CallbackAPIVersion  # noqa: TID251 - the reference
from paho.mqtt.packettypes import PacketTypes  # noqa: TID251 - the reference
from paho.mqtt.properties import Properties  # noqa: TID251 - the reference
from paho.mqtt.subscribeoptions import SubscribeOptions  # noqa: TID251 - the reference

from splitbus_demo import broker as demo_broker
from splitbus_demo.broker import Broker, Kind, answers_connect, installed, start_broker
from splitbus_schemas.errors import BusError, ConfigError

pytestmark = pytest.mark.broker

KINDS: tuple[Kind, ...] = installed()


@pytest.fixture(scope="module", params=KINDS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with start_broker(request.param) as running:
        yield running


class Client:
    """An MQTT 5 client that keeps what it gets."""

    def __init__(self, broker: Broker, name: str, *, will: str = "") -> None:
        self.messages: list[mqtt.MQTTMessage] = []
        self.changed = threading.Condition()
        self.connected = threading.Event()
        self.subscribed = threading.Event()
        self.inner = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
        self.inner.on_connect = lambda *_: self.connected.set()
        self.inner.on_subscribe = lambda *_: self.subscribed.set()
        self.inner.on_message = self._keep
        if will:
            self.inner.will_set(will, b"gone", qos=1, retain=True)
        self.inner.connect(broker.host, broker.port)
        self.inner.loop_start()
        assert self.connected.wait(5)

    def _keep(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    def subscribe(self, topic: str) -> None:
        self.subscribed.clear()
        self.inner.subscribe(topic, options=SubscribeOptions(qos=0))
        assert self.subscribed.wait(5)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, **properties: Any) -> None:
        carried: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho types it not
        for name, value in properties.items():
            setattr(carried, name, value)
        self.inner.publish(topic, payload, retain=retain, properties=carried)

    def wait(self, count: int, seconds: float = 5) -> list[mqtt.MQTTMessage]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.messages) >= count, seconds), self.messages
            return self.messages[:]

    def close(self) -> None:
        self.inner.disconnect()
        self.inner.loop_stop()


def test_it_says_what_it_is(broker: Broker) -> None:
    assert broker.kind in KINDS
    assert broker.version[0].isdigit()
    assert answers_connect(broker.host, broker.port)


def test_a_megabyte_with_its_properties_passes(broker: Broker) -> None:
    with closing(Client(broker, "one")) as one, closing(Client(broker, "two")) as two:
        two.subscribe("jobs/+/big")
        payload = bytes(range(256)) * 4096
        one.publish(
            "jobs/a/big",
            payload,
            UserProperty=[("codec", "raw"), ("epoch", "7")],
            ResponseTopic="replies/one",
            CorrelationData=b"\0\1",
        )
        (message,) = two.wait(1)
    properties: Any = message.properties
    assert message.payload == payload
    assert properties.UserProperty == [("codec", "raw"), ("epoch", "7")]
    assert properties.ResponseTopic == "replies/one"
    assert properties.CorrelationData == b"\0\1"


def test_the_last_retained_message_reaches_late_subscribers(broker: Broker) -> None:
    with closing(Client(broker, "one")) as one:
        for text in (b"old", b"new"):
            one.publish("state/cam", text, retain=True, UserProperty=[("epoch", "1")])
        one.publish("state/gone", b"x", retain=True)
        one.publish("state/gone", b"", retain=True)
        with closing(Client(broker, "probe")) as probe:  # what it hears of its own comes after all of the above
            probe.subscribe("ready")
            one.subscribe("ready")
            one.publish("ready", b"")
            probe.wait(1)
        with closing(Client(broker, "late")) as late:
            late.subscribe("state/#")
            message = late.wait(1)[0]
            time.sleep(0.1)
            assert [(m.topic, m.payload, m.retain) for m in late.messages] == [("state/cam", b"new", True)]
    properties: Any = message.properties
    assert properties.UserProperty == [("epoch", "1")]


def test_a_killed_client_leaves_its_will_at_once(broker: Broker) -> None:
    program = """
import sys, time
import paho.mqtt.client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.will_set("status/doomed", b"gone", qos=1, retain=True)
client.on_connect = lambda *_: print("connected", flush=True)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
"""
    with closing(Client(broker, "watcher")) as watcher:
        watcher.subscribe("status/#")
        command = [sys.executable, "-c", program, str(broker.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as doomed:
            assert doomed.stdout is not None
            assert doomed.stdout.readline() == "connected\n"
            killed = time.monotonic()
            doomed.kill()
            (message,) = watcher.wait(1)
    assert (message.topic, message.payload) == ("status/doomed", b"gone")
    assert time.monotonic() - killed < 1
    with closing(Client(broker, "later")) as later:
        later.subscribe("status/#")
        assert later.wait(1)[0].retain


def test_a_packet_above_the_limit_is_not_carried(broker: Broker) -> None:
    with closing(Client(broker, "one")) as one, closing(Client(broker, "two")) as two:
        two.subscribe("large")
        one.publish("large", bytes(demo_broker.MAX_PACKET_BYTES // 2))
        two.wait(1)
        one.inner.on_connect = None
        one.publish("large", bytes(demo_broker.MAX_PACKET_BYTES + 1))
        time.sleep(0.5)
        assert len(two.messages) == 1


def test_round_trips_at_qos_0_do_not_wait_for_nagle(broker: Broker) -> None:
    with closing(Client(broker, "one")) as one, closing(Client(broker, "two")) as two:
        for client in (one, two):
            sock = client.inner.socket()
            assert isinstance(sock, socket.socket)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def answer(client: mqtt.Client, _data: object, _message: mqtt.MQTTMessage) -> None:
            client.publish("pong", b"x")

        two.inner.on_message = answer
        two.subscribe("ping")
        one.subscribe("pong")
        took = []
        for count in range(1, 31):
            started = time.perf_counter()
            one.publish("ping", bytes(1000))
            one.wait(count)
            took.append(time.perf_counter() - started)
    assert sorted(took)[15] < 0.015


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_after_the_block(kind: Kind) -> None:
    with start_broker(kind) as running:
        folder = running.log.parent
    assert not folder.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((running.host, running.port))


@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_when_its_starter_is_killed(kind: Kind, tmp_path: Path) -> None:
    program = """
import sys, time
from splitbus_demo.broker import start_broker
with start_broker(sys.argv[1]) as broker:
    print(broker.port, flush=True)
    time.sleep(60)
"""
    command, env = [sys.executable, "-c", program, kind], {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline())
        assert answers_connect("127.0.0.1", port)
        os.kill(starter.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while answers_connect("127.0.0.1", port) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not answers_connect("127.0.0.1", port)


def test_mosquitto_comes_first_where_it_is_installed() -> None:
    with start_broker() as running:
        assert running.kind == KINDS[0]
    assert list(KINDS) == [kind for kind in ("mosquitto", "iotcore") if kind in KINDS]


def test_a_broker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_broker, "_FINDERS", {"mosquitto": lambda: None, "iotcore": lambda: None})
    with pytest.raises(ConfigError, match=r"no broker to start \(mosquitto or iotcore\): install"):
        start_broker().__enter__()


def test_a_broker_that_refuses_its_settings_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_broker, "IOTCORE_CONFIG", "id = 'no number'")
    with pytest.raises(BusError, match=r"iotcore [\d.]+ did not start: \S+"):
        start_broker("iotcore").__enter__()


def test_something_else_on_the_port_is_no_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        assert not answers_connect(host, port, timeout=0.1)
    assert not answers_connect(host, port)
