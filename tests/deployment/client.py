"""A bare MQTT 5 client: what the broker does is under test here, not ours."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt  # noqa: TID251 - the broker is under test
from paho.mqtt.enums import CallbackAPIVersion  # noqa: TID251 - the broker is under test
from paho.mqtt.packettypes import PacketTypes  # noqa: TID251 - the broker is under test
from paho.mqtt.properties import Properties  # noqa: TID251 - the broker is under test
from paho.mqtt.reasoncodes import ReasonCode  # noqa: TID251 - the broker is under test

UntypedProperties: Any = Properties
"""paho gives neither its constructor nor its attributes a type."""

WAIT_SECONDS = 10.0
QUIET_SECONDS = 0.3


class ConnectRefusedError(Exception):
    """The broker said no, with its reason."""


class Client:
    """One connection; what arrives waits in a queue."""

    def __init__(self, user: str | None = None, password: str | None = None, *, keepalive: int = 30) -> None:
        self.raw = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
        self.raw.username_pw_set(user, password)
        self.connack: Any = None
        self.disconnected = threading.Event()
        self._keepalive = keepalive
        self._answers: queue.Queue[ReasonCode | list[ReasonCode]] = queue.Queue()
        self._messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.raw.on_socket_open = _without_delay
        self.raw.on_connect = self._on_connect
        self.raw.on_disconnect = lambda *_: self.disconnected.set()
        self.raw.on_publish = lambda _client, _data, _mid, reason, _properties: self._answers.put(reason)
        self.raw.on_subscribe = lambda _client, _data, _mid, reasons, _properties: self._answers.put(reasons)
        self.raw.on_message = lambda _client, _data, message: self._messages.put(message)

    def trust(self, ca: Path, certificate: Path | None = None, key: Path | None = None) -> Client:
        """Use TLS, with a certificate of our own when there is one."""
        own = None if certificate is None else str(certificate)
        self.raw.tls_set(str(ca), own, None if key is None else str(key), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        return self

    @contextlib.contextmanager
    def connected(self, host: str, port: int) -> Iterator[Client]:
        """Connected for the block. Raises ConnectRefusedError, or ssl.SSLError."""
        self.raw.connect(host, port, self._keepalive)
        self.raw.loop_start()
        try:
            reason = self._answers.get(timeout=WAIT_SECONDS)
            if isinstance(reason, ReasonCode) and reason.is_failure:
                raise ConnectRefusedError(str(reason))
            yield self
        finally:
            self.raw.disconnect()
            self.raw.loop_stop()
            self.raw._reset_sockets()  # its wake-up pair, which it leaves to the garbage collector

    def publish(
        self, topic: str, payload: bytes = b"x", *, retain: bool = False, properties: Properties | None = None
    ) -> str:
        """Publish at QoS 1; the broker's reason."""
        self.raw.publish(topic, payload, qos=1, retain=retain, properties=properties)
        return str(self._answers.get(timeout=WAIT_SECONDS))

    def subscribe(self, topic: str) -> None:
        self.raw.subscribe(topic, qos=1)
        self._answers.get(timeout=WAIT_SECONDS)

    def vanish(self) -> None:
        """Cut the connection without a goodbye, so that the last will is published."""
        sock = self.raw.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)

    def receive(self) -> mqtt.MQTTMessage:
        return self._messages.get(timeout=WAIT_SECONDS)

    def rest(self) -> list[str]:
        """The topics of everything that has arrived, once nothing more comes."""
        topics = []
        with contextlib.suppress(queue.Empty):
            while True:
                topics.append(self._messages.get(timeout=QUIET_SECONDS).topic)
        return topics

    def _on_connect(
        self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.connack = properties
        self._answers.put(reason)


def _without_delay(_client: mqtt.Client, _data: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def request(response_topic: str, correlation: bytes, **user: str) -> Any:
    """PUBLISH properties of a request, or of its answer when the topic is empty."""
    properties: Any = UntypedProperties(PacketTypes.PUBLISH)
    if response_topic:
        properties.ResponseTopic = response_topic
    properties.CorrelationData = correlation
    properties.UserProperty = list(user.items())
    return properties
