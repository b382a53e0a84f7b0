"""Which handlers a topic has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from splitbus_runtime.bus import Handler, matches

MAX_ROUTES: Final = 1024
"""Topics whose handlers are remembered; matching filters takes longer than handing over a small message."""


class Routes:
    """Handlers by filter. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Handler, int]] = {}
        self._known: dict[str, list[Handler]] = {}

    def add(self, filters: Iterable[str], handler: Handler, qos: int) -> None:
        """`handler` gets what matches the filters, in place of an earlier one."""
        self._handlers.update(dict.fromkeys(filters, (handler, qos)))
        self._known.clear()

    def remove(self, filters: Iterable[str]) -> None:
        """No longer."""
        for pattern in filters:
            self._handlers.pop(pattern, None)
        self._known.clear()

    @property
    def wanted(self) -> list[tuple[str, int]]:
        """Filters and QoS to subscribe with."""
        return [(pattern, qos) for pattern, (_, qos) in self._handlers.items()]

    def of(self, topic: str) -> list[Handler]:
        """All handlers of a topic."""
        found = self._known.get(topic)
        if found is None:
            if len(self._known) >= MAX_ROUTES:
                self._known.clear()
            found = [handler for pattern, (handler, _) in self._handlers.items() if matches(pattern, topic)]
            self._known[topic] = found
        return found
