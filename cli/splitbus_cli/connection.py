"""An operator's connection: finds out quickly whether the broker takes us, and reads what it retains."""

from __future__ import annotations

import contextlib
import queue
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Final

from splitbus_cli.options import Target
from splitbus_runtime.bus import Delivery
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.settings import BrokerSettings
from splitbus_schemas.errors import BusError
from splitbus_schemas.ids import check_id

DEFAULT_URL: Final = "mqtt://localhost"
DEFAULT_SITE: Final = "home"

CONNECT_SECONDS: Final = 5.0
REFUSED_SECONDS: Final = 0.3
"""A daemon waits for its broker; at a terminal, the second refusal in a row is the answer."""

QUIET_SECONDS: Final = 0.3
"""Retained messages follow the SUBACK in one go: a pause of this length ends them."""

RETAINED_SECONDS: Final = 5.0
CONFIRM_SECONDS: Final = 3.0


class Connection:
    """Deliveries of a few filters, in order, taken from a queue on the caller's thread."""

    def __init__(self, target: Target) -> None:
        self.site = check_id("site", target.site or DEFAULT_SITE)
        broker = BrokerSettings.of(**({"url": DEFAULT_URL} | target.broker_fields))
        self.address = broker.address
        self.user = broker.user
        self.inbox: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        password, tls = broker.read_password(), broker.ssl_context()
        self.bus = MqttBus(
            broker.host,
            broker.port,
            client_id=f"splitbus-operator-{secrets.token_hex(4)}",
            username=broker.user,
            password=password,
            tls=tls,
        )

    def connect(self) -> None:
        """Wait for the broker. Raises BusError as soon as it is clear that it will not take us."""
        deadline = time.monotonic() + CONNECT_SECONDS
        refused_at = None
        while not self.bus.connected:
            now = time.monotonic()
            problem = self.bus.problem
            refused_at = (refused_at or now) if problem else None
            if now > deadline or (refused_at and now - refused_at > REFUSED_SECONDS):
                raise BusError(f"broker at {self.address}: {problem or 'no answer'}{_remedy(problem)}")
            time.sleep(0.01)

    def subscribe(self, filters: str | Sequence[str]) -> None:
        """Put what comes under `filters` in the inbox."""
        self.bus.subscribe(filters, self.inbox.put)

    def retained(self, filters: Sequence[str]) -> list[Delivery]:
        """What the broker retains under `filters`, which stay subscribed; other messages are left out."""
        self.subscribe(filters)
        found: list[Delivery] = []
        end = time.monotonic() + RETAINED_SECONDS
        quiet = time.monotonic() + QUIET_SECONDS
        while (left := min(end, quiet) - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                delivery = self.inbox.get(timeout=left)
                if delivery.retain:
                    found.append(delivery)
                    quiet = time.monotonic() + QUIET_SECONDS
        return found

    def retain(self, topic: str, payload: bytes) -> None:
        """Leave `payload` at `topic`, and see it come back. Raises BusError when it does not."""
        self.subscribe(topic)
        self.bus.publish(topic, payload, qos=1, retain=True)
        end = time.monotonic() + CONFIRM_SECONDS
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                delivery = self.inbox.get(timeout=left)
                if (delivery.topic, delivery.payload) == (topic, payload):
                    return
        who = f"user {self.user!r}" if self.user else "an anonymous client"
        raise BusError(f"broker at {self.address} did not take {topic}: may {who} write there? See its ACL")


@contextlib.contextmanager
def connected(target: Target) -> Iterator[Connection]:
    """A connection that the broker has accepted. Raises ConfigError, BusError."""
    connection = Connection(target)
    try:
        connection.connect()
        yield connection
    finally:
        connection.bus.close()


def _remedy(problem: str) -> str:
    return ": start it, or name another with --broker" if not problem or "cannot connect" in problem else ""
