"""Hears over the bus how the bridge to a site's other broker does, and tells when it stops and when it is back."""

from __future__ import annotations

import logging
from typing import Final

from splitbus_gateway.alerts import Alerts
from splitbus_gateway.bridge import Bridge, BridgeState
from splitbus_runtime.bus import Delivery
from splitbus_schemas.topics import BEYOND

log = logging.getLogger(__name__)

SETTLED_S: Final = 0.5
"""After a reconnect each broker sends the other what it retains; what is said before is written over by it."""

PATIENCE_S: Final = 15.0
"""A bridge that was never heard to carry may still be on its way up: it is tried anew every few seconds."""

TELLS: Final[dict[BridgeState, str]] = {"down": "is down", "silent": "is silent"}


class BridgeWatch:
    """One bridge, as this gateway's broker tells of it. Belongs to the thread that keeps the lease."""

    def __init__(self, alerts: Alerts, *, site: str, name: str, now: float) -> None:
        self.name, self.bridge = name, Bridge()
        self._alerts, self._begun = alerts, now
        self._state_topic = f"$SYS/broker/connection/{name}/state"
        self._beat_topic = BEYOND.at(site, bridge=name)
        self._told: BridgeState | None = None
        self._has_carried = False
        self._rejoin_at: float | None = None

    @property
    def topics(self) -> list[str]:
        """What it is to be given."""
        return [self._state_topic, self._beat_topic]

    def take(self, delivery: Delivery, now: float) -> None:
        """The broker's word on the bridge, or the uptime that came over it; a retained uptime came who knows when."""
        if delivery.topic == self._state_topic:
            self.bridge.note_state(now, up=delivery.payload == b"1")
        elif not delivery.retain and delivery.payload:
            self.bridge.note_beat(now)

    @property
    def trouble(self) -> str:
        """What is the matter with it, as told last; empty when it carries, or may still come up."""
        return "" if self._told in (None, "carries") else f"bridge {self.name} {TELLS[self._told]}"

    def look(self, now: float, what_follows: str) -> bool:
        """Tell a change, and `what_follows` from a cut; whether the bridge came back, and all that crossed has come."""
        state = self.bridge.state(now)
        if state != self._told and (self._told or state == "carries" or now - self._begun > PATIENCE_S):
            self._told = state
            self._tell(state, what_follows)
            self._rejoin_at = now + SETTLED_S if state == "carries" else None
        if self._rejoin_at is None or now < self._rejoin_at:
            return False
        self._rejoin_at = None
        return True

    def _tell(self, state: BridgeState, what_follows: str) -> None:
        if state == "carries":
            self._has_carried = True
            log.info("bridge %s carries", self.name)
            return
        unproven = (
            ""
            if self._has_carried
            else "; its uptime lines, `sys_interval 1` or the rights to read them may be missing"
        )
        self._alerts("bridge_cut", f"{self.trouble}{unproven}; {what_follows}", self._state_topic)
