"""A short visit to a broker, on the caller's thread: what it announces, and how it takes what a node never sends."""

from __future__ import annotations

import contextlib
import secrets
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from splitbus_runtime.bus import Delivery
from splitbus_runtime.paho_client import Caller, Client, options, why_not
from splitbus_runtime.settings import BrokerSettings
from splitbus_schemas.errors import BusError

ANSWER_SECONDS: Final = 3.0
"""A broker that takes longer for one answer is no broker to send frames through."""

KEEPALIVE_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Announced:
    """What the broker says of itself in CONNACK (MQTT 5, 3.2.2.3); None where it says nothing."""

    max_packet_bytes: int | None
    receive_maximum: int | None
    keepalive_s: int | None
    max_qos: int = 2
    retain: bool = True
    wildcards: bool = True


class Visit:
    """One connection; made by `visit`."""

    def __init__(self, client: Client) -> None:
        self.announced = Announced(None, None, None)
        self.arrived: list[Delivery] = []
        self.refusal = ""
        self._client = client
        self._connected = False
        self._subscribed: set[int] = set()
        self._reasons: dict[int, str] = {}
        client.on_connect = self._on_connect
        client.on_subscribe = lambda _client, _data, mid, _reasons, _properties: self._subscribed.add(mid)
        client.on_publish = self._on_publish
        client.on_message = lambda _client, _data, message: self.arrived.append(
            Delivery(message.topic, bytes(message.payload), message.retain)
        )

    def publish(self, topic: str, payload: bytes = b"", *, retain: bool = False) -> str:
        """Send with QoS 1, and return the broker's word on it: "" when it took the message, else why not."""
        mid = self._client.publish(topic, payload, 1, retain).mid
        if not self._wait(lambda: mid in self._reasons):
            return self.refusal or "no PUBACK"
        return self._reasons[mid]

    def subscribe(self, topic: str) -> None:
        """Hear a topic with QoS 1; Raises BusError when the broker does not answer."""
        _, mid = self._client.subscribe([(topic, options(1))])
        if mid is None or not self._wait(lambda: mid in self._subscribed):
            raise BusError(f"no SUBACK for {topic}")

    def hear(self, count: int) -> bool:
        """Wait until so many messages have arrived since the subscription."""
        return self._wait(lambda: len(self.arrived) >= count)

    def wait_connected(self) -> None:
        """Raises BusError with the broker's reason."""
        if not self._wait(lambda: self._connected) or self.refusal:
            raise BusError(self.refusal or "no CONNACK: is this an MQTT 5 broker?")

    def _wait(self, done: Any) -> bool:
        end = time.monotonic() + ANSWER_SECONDS
        while not done() and time.monotonic() < end:
            if self._client.loop(0.05):
                self.refusal = self.refusal or "the broker ended the connection"
                break
        return bool(done())

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        self._connected = True
        if reason.is_failure:
            self.refusal = f"refused: {reason}"
            return

        def said(name: str, otherwise: int | None = None) -> Any:
            return getattr(properties, name, otherwise)

        self.announced = Announced(
            said("MaximumPacketSize"),
            said("ReceiveMaximum"),
            said("ServerKeepAlive"),
            said("MaximumQoS", 2),
            bool(said("RetainAvailable", 1)),
            bool(said("WildcardSubscriptionAvailable", 1)),
        )

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        self._reasons[mid] = str(reason) if reason.is_failure else ""


@contextlib.contextmanager
def visit(broker: BrokerSettings, *, anonymous: bool = False) -> Iterator[Visit]:
    """A connection that acknowledges when the kernel likes, unlike a node's: it feels a broker without TCP_NODELAY.

    Raises BusError.
    """
    arrived: list[Delivery] = []
    named = broker.user is not None and not anonymous
    who = (broker.user, broker.read_password()) if named else (None, None)
    client = Client(Caller(f"splitbus-doctor-{secrets.token_hex(4)}", *who, broker.ssl_context()), arrived.append)
    client.connect_timeout = ANSWER_SECONDS
    client.on_socket_open = _send_at_once
    guest = Visit(client)
    guest.arrived = arrived
    try:
        client.dial(broker.host, broker.port, KEEPALIVE_SECONDS)
        guest.wait_connected()
        yield guest
    except (OSError, ValueError) as error:
        raise BusError(why_not(error)) from error
    finally:
        client.disconnect()
        client.loop(0.05)


def _send_at_once(_client: Any, _data: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def nagle_ms(broker: BrokerSettings, own: str, foreign: str, *, rounds: int = 9) -> float:
    """How much longer a message takes behind a PUBACK that the kernel has not acknowledged yet, in ms (median).

    A broker that leaves Nagle's algorithm on holds it for 40 ms (M11 in the list of pitfalls). `own` is a topic that
    this user may write and read; `foreign` one that nobody reads. Raises BusError.
    """
    alone: list[float] = []
    behind: list[float] = []
    with visit(broker) as listener, visit(broker) as sender:
        listener.subscribe(own)
        for turn in range(2 * rounds):
            if turn % 2:
                listener.publish(foreign)
            began = time.perf_counter()
            sender.publish(own, b"x")
            if not listener.hear(turn + 1):
                raise BusError(f"{own} does not come back: may this user write and read it?")
            (behind if turn % 2 else alone).append((time.perf_counter() - began) * 1e3)
    return statistics.median(behind) - statistics.median(alone)
