"""Counts what goes wrong, logs it and tells it on the gateway's alert topic, no faster than people can read."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

from splitbus_runtime.bus import Bus
from splitbus_runtime.health import Health
from splitbus_runtime.secrets import redacted
from splitbus_schemas.messages import Alert
from splitbus_schemas.topics import ALERT

log = logging.getLogger(__name__)

MAX_PER_SECOND: Final = 5
"""A flood of bad messages must not become a flood of alerts; the counters count on."""


class Alerts:
    """The gateway's alerts and counters. Thread-safe."""

    def __init__(
        self, bus: Bus, *, site: str, node: str, clock: Callable[[], float], health: Health | None = None
    ) -> None:
        self._bus, self._node, self._clock, self._health = bus, node, clock, health
        self._topic = ALERT.at(site, node=node)
        self._lock = threading.Lock()
        self._second = -1
        self._left = 0
        self.counters: Counter[str] = Counter()

    def count(self, what: str) -> None:
        """Add one to a counter."""
        with self._lock:
            self.counters[what] += 1

    def __call__(self, what: str, reason: str, topic: str | None = None) -> None:
        """Count `what`, and unless there were too many alerts this second, log and publish the reason."""
        self.count(what)
        if self._health:
            self._health.trouble(what, reason)
        if not self._may_speak():
            return
        log.warning("%s: %s", what, reason, extra={"kind": what})
        alert = Alert(node=self._node, what=what, reason=redacted(reason)[:1000], topic=topic[:200] if topic else None)
        self._bus.publish(self._topic, alert.to_json(), qos=ALERT.qos)

    def _may_speak(self) -> bool:
        with self._lock:
            second = int(self._clock())
            if second != self._second:
                self._second, self._left = second, MAX_PER_SECOND
            self._left -= 1
            return self._left >= 0
