"""A Bus over MQTT 5 that comes back by itself, with paho's traps answered.

paho keeps unacknowledged messages over a reconnect and sends them again, for ever when the broker refuses one
(eclipse-paho/paho.mqtt.python#893; an oversize publish does the same). So every connection gets a paho client of its
own, and what must survive, subscriptions and retained state, is kept here. All calls into paho are made under one lock
(#354, #531: publishing from many threads has deadlocked); `publish` writes to the socket on the caller's thread when
nothing is queued, which saves a hand-over.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from splitbus_runtime.bus import Delivery, Handler, UserProperties, Watcher, Will
from splitbus_runtime.liveness import Liveness
from splitbus_runtime.paho_client import (
    REMEDIES,
    Caller,
    Client,
    Message,
    options,
    publish_properties,
    why_not,
)
from splitbus_runtime.routes import Routes
from splitbus_runtime.sockets import (
    acknowledge_at_once,
    acknowledged_s,
    say_goodbye,
    unacknowledged,
)
from splitbus_schemas.errors import BusError, PayloadTooLargeError

log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 5.0
"""A broker that does not answer CONNECT in this time is not there."""

DIAL_SECONDS: Final = (2.0, 2.0, CONNECT_SECONDS)
"""Attempts take turns: old kernels ask again after 1, 3 and 7 s, so that a short attempt finds a link that is back
sooner; where a round trip takes longer than two seconds, only a long one succeeds."""

BACKOFF_SECONDS: Final = (0.05, 0.1, 0.2, *[0.4] * 12, 1.0)
"""Waits between attempts: a broker that starts anew is found within 0.4 s, one that is gone is not hammered.
Each is cut by up to a half at random: a broker's clients must not all come at once."""

STABLE_SECONDS: Final = 5.0
"""A connection that ended sooner is no reason to come back without a wait."""

UNSTABLE_ATTEMPTS: Final = 3
"""After so many of those, something is wrong: two programs with one id throw each other out, for ever."""

GOODBYE_SECONDS: Final = 0.5
"""For what awaits its PUBACK, and once more for the broker to close the connection."""

DISCONNECT: Final = b"\xe0\x00"
"""The whole packet. paho closes its socket behind it; see `say_goodbye`."""

KEEPALIVE_SECONDS: Final = 2
"""A half-open connection is noticed by the broker within 4 s, and it then publishes our will; by us, see `liveness`."""

WAIT_SECONDS: Final = 0.5
"""The network thread looks around so often at least."""

MAX_QUEUED_BYTES: Final = 32 * 2**20
"""What paho may hold of ours behind a socket that takes no more; further messages are dropped and counted."""

DEFAULT_MAX_PACKET: Final = 16 * 2**20
"""For brokers that announce no Maximum Packet Size."""

MAX_INFLIGHT: Final = 20
"""Unacknowledged QoS 1 messages; Mosquitto's own default for the other direction."""

PACKET_OVERHEAD: Final = 1024
"""Room in a packet for topic and properties."""


class MqttBus:
    """A connection to an MQTT 5 broker that comes back by itself. See `bus.Bus`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        client_id: str,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        will: Will | None = None,
        receive_maximum: int = 64,
    ) -> None:
        self.host, self.port = host, port
        self.counters: dict[str, int] = {}
        self.problem = ""
        self._caller = Caller(client_id, username, password, tls, will, receive_maximum)
        self._max_packet = DEFAULT_MAX_PACKET
        self._lock = threading.RLock()
        self._routes = Routes()
        self._retained: dict[str, tuple[bytes, int, UserProperties]] = {}
        self._watchers: list[Watcher] = []
        self._inbox: list[Delivery] = []
        self._awaiting_suback = -1
        self._accepted = False
        self._newly_ready = False
        self._max_inflight = MAX_INFLIGHT
        self._client: Client | None = None
        self._connected = threading.Event()
        self._closing = threading.Event()
        self._queued_bytes = 0
        self._unacknowledged: dict[int, str] = {}
        self._refused: set[str] = set()
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        self._doubted = False
        self._sent_at = time.monotonic()
        self._liveness = Liveness(self._sent_at)
        self._thread = threading.Thread(target=self._run, name=f"splitbus-bus-{client_id}", daemon=True)
        self._thread.start()

    # What callers use

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    @property
    def max_packet_bytes(self) -> int:
        return self._max_packet - PACKET_OVERHEAD

    @property
    def queued_bytes(self) -> int:
        """What waits here because the socket takes no more."""
        return self._queued_bytes

    def wait_connected(self, timeout: float) -> None:
        """Return once connected and subscribed. Raises BusError saying why it did not come to that."""
        if not self._connected.wait(timeout):
            why = self.problem or f"no answer within {timeout:g} s"
            raise BusError(f"broker at {self.host}:{self.port}: {why}")

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        user: UserProperties = (),
        expiry_s: int | None = None,
        keep: bool = True,
    ) -> bool:
        if len(payload) > self.max_packet_bytes:
            raise PayloadTooLargeError(f"message to {topic}", len(payload), self.max_packet_bytes)
        with self._lock:
            if retain and keep:
                self._retained[topic] = (payload, qos, user)
            client = self._client
            if client is None or not self.connected:
                return False
            if self._queued_bytes + len(payload) > MAX_QUEUED_BYTES:
                self._count("send_queue_full")
                return False
            self._put(client, topic, payload, qos, retain=retain, properties=publish_properties(user, expiry_s))
            if retain and not payload:
                self._retained.pop(topic, None)
            self._count("published")
            self._queued_bytes = self._queued_bytes + len(payload) if client.want_write() else 0
            if self._queued_bytes or not client.is_connected():
                self._wake()
        return True

    def subscribe(self, topics: str | Sequence[str], handler: Handler, *, qos: int = 0) -> None:
        filters = [topics] if isinstance(topics, str) else list(topics)
        with self._lock:
            self._routes.add(filters, handler, qos)
            if self._client is not None and self._accepted:
                self._client.subscribe([(topic, options(qos)) for topic in filters])
                self._wake()

    def unsubscribe(self, topics: str | Sequence[str]) -> None:
        filters = [topics] if isinstance(topics, str) else list(topics)
        with self._lock:
            self._routes.remove(filters)
            if self._client is not None and self._accepted:
                self._client.unsubscribe(filters)
                self._wake()

    def watch(self, watcher: Watcher) -> None:
        with self._lock:
            self._watchers.append(watcher)
            connected = self.connected
        watcher(connected)

    def doubt(self) -> None:
        self._doubted = True
        self._wake()

    def close(self) -> None:
        self._closing.set()
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(CONNECT_SECONDS + 2)

    # The network thread

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            client = self._open(DIAL_SECONDS[attempt % len(DIAL_SECONDS)])
            if client is not None:
                opened = time.monotonic()
                try:
                    self._pump(client)
                except Exception:
                    self._count("bus_errors")
                    log.exception("the connection to %s:%d failed; opening a new one", self.host, self.port)
                lived = self.connected
                attempt = 0 if lived and time.monotonic() - opened > STABLE_SECONDS else attempt + 1
                self._lost()
                if lived and attempt >= UNSTABLE_ATTEMPTS and not self._closing.is_set():
                    self._fail(f"connections end at once: does another program use the id {self._caller.client_id}?")
            else:
                attempt += 1
            backoff = BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
            self._closing.wait(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        self._wake_r.close()
        self._wake_w.close()

    def _open(self, patience_s: float) -> Client | None:
        client = Client(self._caller, self._inbox.append)
        client.connect_timeout = patience_s
        client.max_inflight_messages_set(self._max_inflight)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        try:
            client.dial(self.host, self.port, KEEPALIVE_SECONDS)
        except (OSError, ValueError) as error:
            self._fail(why_not(error))
            return None
        with self._lock:
            self._client = client
            self._queued_bytes = 0
        return client

    def _pump(self, client: Client) -> None:
        opened = self._sent_at = time.monotonic()
        self._liveness, leaving = Liveness(opened), 0.0
        while (sock := client.socket()) is not None:
            now = time.monotonic()
            leaving = leaving or (now if self._closing.is_set() else 0.0)
            if leaving and (now > leaving + GOODBYE_SECONDS or not (self._unacknowledged or client.want_write())):
                with self._lock:
                    say_goodbye(sock, DISCONNECT, GOODBYE_SECONDS)
                break
            self._step(client, sock)
            if self._accepted and not self._answers(client, sock):
                break
            if not self.connected and now - opened > CONNECT_SECONDS and not leaving:
                self._fail("connected, but no CONNACK or SUBACK: is this an MQTT 5 broker?")
                break
        with self._lock, contextlib.suppress(OSError):
            closing = client.socket()
            if closing is not None:
                closing.close()

    def _answers(self, client: Client, sock: Any) -> bool:
        """Ask the broker for a sign of life when it is time; False when it gives none."""
        now, life = time.monotonic(), self._liveness
        if life.is_to_look(now):
            life.backlog(unacknowledged(sock), now, acked_at=now - acknowledged_s(sock))
        if self._doubted:
            self._doubted = False
            life.doubt()
        if life.is_dead(now):
            self.problem = "connection lost: no answer, not even to a ping"
            log.warning("broker at %s:%d: %s", self.host, self.port, self.problem)
            return False
        if life.is_to_ask(self._sent_at, now):
            with self._lock:
                client.ping()
            self._sent_at = now
            life.asked(now)
        return True

    def _step(self, client: Client, sock: Any) -> None:
        """Wait for the socket or a wake-up, then let paho read and write once."""
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        writers = [sock] if client.want_write() else []
        due_s = self._liveness.due_in(self._sent_at, time.monotonic()) if self._accepted else WAIT_SECONDS
        patience_s = 0.0 if pending else min(WAIT_SECONDS, due_s)
        try:
            readable, writable, _ = select.select([sock, self._wake_r], writers, [], patience_s)
        except (OSError, ValueError):
            readable, writable = [sock], []
        if self._wake_r in readable:
            with contextlib.suppress(BlockingIOError):
                self._wake_r.recv(4096)
        with self._lock:
            if sock in readable or pending:
                self._liveness.heard(time.monotonic())
                client.loop_read()
                acknowledge_at_once(sock)
            if writable or (writers and not readable):
                client.loop_write()
            if not client.want_write():
                self._queued_bytes = 0
            client.loop_misc()
            arrived = list(self._inbox)
            self._inbox.clear()
            newly_ready, self._newly_ready = self._newly_ready, False
        if newly_ready:
            self._tell(connected=True)
        for delivery in arrived:
            self._dispatch(delivery)

    def _dispatch(self, delivery: Delivery) -> None:
        with self._lock:
            handlers = self._routes.of(delivery.topic)
        for handler in handlers:
            try:
                handler(delivery)
            except Exception:
                self._count("handler_errors")
                log.exception("a handler failed on %s (%d bytes)", delivery.topic, len(delivery.payload))

    def _lost(self) -> None:
        with self._lock:
            was = self.connected
            self._connected.clear()
            self._accepted = False
            self._client = None
            self._inbox.clear()
            self._queued_bytes = 0
            self._unacknowledged.clear()
            self._refused.clear()
        if was:
            self._count("disconnects")
            self._tell(connected=False)

    def _fail(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("broker at %s:%d: %s", self.host, self.port, problem)
        self.problem = problem
        self._count("connect_failures")

    # paho's callbacks: on the network thread, under the lock

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._fail(f"refused: {reason}{REMEDIES.get(str(reason), '')}")
            client.disconnect()
            return
        self._max_packet = getattr(properties, "MaximumPacketSize", DEFAULT_MAX_PACKET)
        if getattr(properties, "ReceiveMaximum", MAX_INFLIGHT) < self._max_inflight:
            self._max_inflight = properties.ReceiveMaximum  # paho takes it only before CONNECT: come again
            client.disconnect()
            return
        self._accepted = True
        wanted = [(topic, options(qos)) for topic, qos in self._routes.wanted]
        if not wanted:
            self._ready(client)
            return
        _, mid = client.subscribe(wanted)
        self._awaiting_suback = mid or -1

    def _on_subscribe(self, client: Any, _data: Any, mid: int, reasons: list[Any], _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._count("subscribe_refused")
            log.warning("broker refused a subscription of %s: %s", self._caller.client_id, ", ".join(map(str, reasons)))
        if mid == self._awaiting_suback and not self.connected:
            self._ready(client)

    def _ready(self, client: Client) -> None:
        self._connected.set()
        self.problem = ""
        for topic, (payload, qos, user) in list(self._retained.items()):
            if len(payload) > self.max_packet_bytes:  # kept before this broker named its limit; it would cut us off
                self._count("too_large")
                log.warning("message to %s has %d bytes, the broker takes %d", topic, len(payload), self._max_packet)
                continue
            self._put(client, topic, payload, qos, retain=True, properties=publish_properties(user, None))
            if not payload:
                del self._retained[topic]
        self._count("connects")
        self._newly_ready = True

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._closing.is_set() and not self.problem:
            remedy = "check certfile and" if self._caller.tls else "see"
            self.problem = (
                f"connection lost: {reason}{REMEDIES.get(str(reason), '')}"
                if self._accepted
                else f"it hung up without an answer: {remedy} the broker's log"
            )
            log.warning("broker at %s:%d: %s", self.host, self.port, self.problem)

    def _on_message(self, _client: Any, _data: Any, message: Message) -> None:
        user = tuple(getattr(message.properties, "UserProperty", ()))
        self._inbox.append(Delivery(message.topic, bytes(message.payload), message.retain, user))

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        topic = self._unacknowledged.pop(mid, "")
        if not reason.is_failure:
            return
        self._count("publish_refused")
        if topic not in self._refused:
            self._refused.add(topic)
            remedy = REMEDIES.get(str(reason), "")
            log.warning("broker at %s:%d refused a message to %s: %s%s", self.host, self.port, topic, reason, remedy)

    # Small things

    def _put(self, client: Client, topic: str, payload: bytes, qos: int, *, retain: bool, properties: Any) -> None:
        if qos:  # only then: with this callback paho builds properties for each message of QoS 0, too
            client.on_publish = self._on_publish
        self._sent_at = time.monotonic()
        mid = client.publish(topic, payload, qos, retain, properties).mid
        if qos:
            self._unacknowledged[mid] = topic

    def _tell(self, *, connected: bool) -> None:
        for watcher in list(self._watchers):
            try:
                watcher(connected)
            except Exception:
                self._count("handler_errors")
                log.exception("a watcher of the connection failed")

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_w.send(b"w")
