"""The bus as everything else sees it: a Protocol, and a twin in memory for tests of one's own code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from splitbus_schemas.errors import PayloadTooLargeError

UserProperties: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it arrived."""

    topic: str
    payload: bytes
    retain: bool = False
    user: UserProperties = ()


Handler: TypeAlias = Callable[[Delivery], None]
Watcher: TypeAlias = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when we vanish."""

    topic: str
    payload: bytes
    delay_s: int = 0


class Bus(Protocol):
    """A connection to the broker. Handlers run on the bus's own thread: they must be quick and never wait on it.

    An exception of a handler is counted and logged; it never ends the connection.
    """

    @property
    def connected(self) -> bool:
        """Whether the broker would get a message now."""

    @property
    def max_packet_bytes(self) -> int:
        """The largest message that the broker takes."""

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
        """Send; False when it was dropped because we are not connected.

        Retained messages are kept, newest per topic, and are sent at every connect, so that a broker that lost
        its state learns them again; without `keep` that is the caller's affair. Raises PayloadTooLargeError before
        anything is sent.
        """

    def subscribe(self, topics: str | Sequence[str], handler: Handler, *, qos: int = 0) -> None:
        """Call `handler` for every message under a filter, now and after every reconnect."""

    def unsubscribe(self, topics: str | Sequence[str]) -> None:
        """No longer."""

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher(connected)` at every change, and once now."""

    def doubt(self) -> None:
        """Find out at once whether the broker still answers: another connection to it was lost."""

    def close(self) -> None:
        """Say goodbye and end the thread; the will is not published."""


class MemoryBroker:
    """Carries messages between MemoryBus objects at once, on the publisher's thread. Retains, matches wildcards."""

    def __init__(self, max_packet_bytes: int = 16 * 2**20) -> None:
        self.max_packet_bytes = max_packet_bytes
        self.lock = threading.RLock()
        self.retained: dict[str, Delivery] = {}
        self.clients: list[MemoryBus] = []

    def connect(self) -> MemoryBus:
        """A new connection."""
        return MemoryBus(self)


class MemoryBus:
    """A Bus without a network."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._handlers: dict[str, Handler] = {}
        self.connected = True
        with broker.lock:
            broker.clients.append(self)

    @property
    def max_packet_bytes(self) -> int:
        return self._broker.max_packet_bytes

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,  # noqa: ARG002 - the Protocol's; memory loses nothing
        retain: bool = False,
        user: UserProperties = (),
        expiry_s: int | None = None,  # noqa: ARG002 - the Protocol's; memory delivers at once
        keep: bool = True,  # noqa: ARG002 - the Protocol's; nothing is sent twice
    ) -> bool:
        if len(payload) > self.max_packet_bytes:
            raise PayloadTooLargeError(f"message to {topic}", len(payload), self.max_packet_bytes)
        if not self.connected:
            return False
        with self._broker.lock:
            if retain:
                self._broker.retained[topic] = Delivery(topic, payload, retain=True, user=user)
                if not payload:
                    del self._broker.retained[topic]
            handlers = [h for client in self._broker.clients for h in client.matching(topic)]
        for handler in handlers:
            handler(Delivery(topic, payload, user=user))
        return True

    def matching(self, topic: str) -> list[Handler]:
        """Our handlers for `topic`."""
        return [handler for pattern, handler in self._handlers.items() if matches(pattern, topic)]

    def subscribe(self, topics: str | Sequence[str], handler: Handler, *, qos: int = 0) -> None:  # noqa: ARG002 - the Protocol's
        for pattern in [topics] if isinstance(topics, str) else topics:
            with self._broker.lock:
                self._handlers[pattern] = handler
                retained = [d for topic, d in self._broker.retained.items() if matches(pattern, topic)]
            for delivery in retained:
                handler(delivery)

    def unsubscribe(self, topics: str | Sequence[str]) -> None:
        for pattern in [topics] if isinstance(topics, str) else topics:
            self._handlers.pop(pattern, None)

    def watch(self, watcher: Watcher) -> None:
        watcher(self.connected)

    def doubt(self) -> None:
        """Memory does not fail."""

    def close(self) -> None:
        self.connected = False
        with self._broker.lock:
            self._broker.clients.remove(self)


def matches(pattern: str, topic: str) -> bool:
    """Whether an MQTT filter matches a topic (MQTT 5, section 4.7)."""
    want, have = pattern.split("/"), topic.split("/")
    if want[-1] == "#":
        return _levels(want[:-1], have[: len(want) - 1])
    return len(want) == len(have) and _levels(want, have)


def _levels(want: list[str], have: list[str]) -> bool:
    return len(want) == len(have) and all(w in ("+", h) for w, h in zip(want, have, strict=True))
