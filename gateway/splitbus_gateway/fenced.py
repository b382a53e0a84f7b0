"""A bus that carries nothing for a gateway that does not lead: what nodes obey goes through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from splitbus_runtime.bus import Bus, Handler, UserProperties, Watcher


class FencedBus:
    """A Bus; `publish` gives False while `leads` does.

    Nothing is said again at a reconnect by itself, for by then another may lead: who publishes says it again.
    """

    def __init__(self, bus: Bus, leads: Callable[[], bool]) -> None:
        self._bus, self._leads = bus, leads
        self.held_back = 0
        """Messages that were not sent."""

    @property
    def connected(self) -> bool:
        return self._bus.connected

    @property
    def max_packet_bytes(self) -> int:
        return self._bus.max_packet_bytes

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        user: UserProperties = (),
        expiry_s: int | None = None,
        keep: bool = False,
    ) -> bool:
        if not self._leads():
            self.held_back += 1
            return False
        return self._bus.publish(topic, payload, qos=qos, retain=retain, user=user, expiry_s=expiry_s, keep=keep)

    def subscribe(self, topics: str | Sequence[str], handler: Handler, *, qos: int = 0) -> None:
        self._bus.subscribe(topics, handler, qos=qos)

    def unsubscribe(self, topics: str | Sequence[str]) -> None:
        self._bus.unsubscribe(topics)

    def watch(self, watcher: Watcher) -> None:
        self._bus.watch(watcher)

    def doubt(self) -> None:
        self._bus.doubt()

    def close(self) -> None:
        self._bus.close()
