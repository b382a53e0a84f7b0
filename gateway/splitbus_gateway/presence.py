"""The gateway as a node on the bus: status, statistics, and a heartbeat through the broker."""

from __future__ import annotations

from collections.abc import Mapping

from splitbus_runtime.agent import software, timestamp
from splitbus_runtime.bus import Bus
from splitbus_runtime.health import Health, Identity, Verdict
from splitbus_schemas.messages import NodeStats, NodeStatus
from splitbus_schemas.topics import ECHO, HEALTH, STATS, STATUS


class Presence:
    """What other nodes and operators see of the gateway itself. Belongs to one thread."""

    def __init__(self, bus: Bus, *, site: str, node: str, boot: str, now: float) -> None:
        self._bus, self._site, self._node, self._boot = bus, site, node, boot
        self._started = self._echoed = now
        self._rtt_ms: float | None = None

    @staticmethod
    def lost(site: str, node: str, boot: str) -> tuple[str, bytes]:
        """Topic and payload of the last will."""
        status = _status("lost", node, boot, "the broker lost the connection")
        return STATUS.at(site, node=node), status.to_json()

    @property
    def echo_topic(self) -> str:
        """Where our heartbeats come back."""
        return ECHO.at(self._site, node=self._node)

    @property
    def echoed_at(self) -> float:
        """When the last heartbeat came back; the start before the first."""
        return self._echoed

    @property
    def answered(self) -> bool:
        """Whether any heartbeat has come back."""
        return self._rtt_ms is not None

    def tell(self, state: str, reason: str | None = None) -> None:
        """Publish our state."""
        status = _status(state, self._node, self._boot, reason)
        self._bus.publish(
            STATUS.at(self._site, node=self._node), status.to_json(), qos=STATUS.qos, retain=STATUS.retain
        )  # fmt: skip

    def beat(self, counters: Mapping[str, int], queued: int, now: float) -> None:
        """Send a heartbeat and the statistics."""
        self._bus.publish(self.echo_topic, f"{self._boot} {int(now * 1e6)}".encode())
        stats = NodeStats(
            node=self._node,
            boot=self._boot,
            uptime_s=round(now - self._started, 1),
            busy=0.0,
            queued=queued,
            broker_rtt_ms=self._rtt_ms,
            counters=dict(counters),
        )
        self._bus.publish(STATS.at(self._site, node=self._node), stats.to_json(), retain=STATS.retain)

    def tell_health(self, health: Health, verdict: Verdict, counters: Mapping[str, int], now: float) -> None:
        """Publish how we do, when it is due."""
        if not health.is_due(verdict):
            return
        me = Identity(self._node, self._boot, "gateway", software())
        ages = {"echo": max(0.0, now - self._echoed)}
        message = health.message(verdict, me, uptime_s=now - self._started, ages=ages, counters=counters)
        self._bus.publish(HEALTH.at(self._site, node=self._node), message.to_json(), retain=HEALTH.retain)

    def echo(self, payload: bytes, now: float) -> None:
        """A heartbeat came back; those of another session are none of ours."""
        boot, _, sent = payload.decode("ascii", "replace").partition(" ")
        if boot == self._boot and sent.isdecimal():
            self._echoed = now
            self._rtt_ms = round(max(0.0, now * 1e3 - int(sent) / 1e3), 3)


def _status(state: str, node: str, boot: str, reason: str | None) -> NodeStatus:
    return NodeStatus.model_validate(
        {
            "state": state,
            "node": node,
            "boot": boot,
            "tier": "gateway",
            "software": software(),
            "since": timestamp(),
            "reason": reason,
        }
    )
