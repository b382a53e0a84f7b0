"""What is known of the bridge between a site's two brokers: whether it carries now, by what came over it. Pure.

Mosquitto tells that a bridge is down as soon as its connection breaks, but not, on the side that connects, when nothing
arrives any more. So nothing is concluded from its word alone: the uptime of the broker beyond, which that broker says
every two seconds and the bridge carries, proves that the bridge works, and since when.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

BEAT_S: Final = 2.0
"""Mosquitto says its uptime so often under `sys_interval 1`: only when more than a second has passed."""

GAP_S: Final = 2.5 * BEAT_S
"""After such a silence the bridge counts as cut: one uptime may be lost, and the next be late."""

BEHIND_S: Final = 0.5
"""What was held up comes in a burst: a lease may be right behind the uptime that seems to prove its absence."""

BridgeState: TypeAlias = Literal["carries", "down", "silent"]
"""Whether something came over it lately; its broker says that it is cut; or nothing comes, and nobody says why."""


class Bridge:
    """The bridge as one gateway sees it. Times are of any clock that runs on."""

    def __init__(self) -> None:
        self._down_until = float("-inf")
        """Its broker said so; one that is joined again has yet to carry something."""
        self._since = self._beat = float("-inf")
        """Of the present run of uptimes without a gap: the first and the newest."""

    def note_state(self, now: float, *, up: bool) -> None:
        """The broker's word on its connection."""
        if not up:
            self._down_until = float("inf")
            self.forget()
        elif self._down_until > now:
            self._down_until = now + GAP_S

    def note_beat(self, now: float) -> None:
        """The broker beyond said its uptime just now."""
        if now - self._beat > GAP_S:
            self._since = now
        self._beat, self._down_until = now, float("-inf")

    def forget(self) -> None:
        """What came until now proves nothing any more."""
        self._since = self._beat = float("-inf")

    def state(self, now: float) -> BridgeState:
        """How it does."""
        if now < self._down_until:
            return "down"
        return "carries" if now - self._beat <= GAP_S else "silent"

    def is_silent(self, heard_at: float, now: float, seconds: float) -> bool:
        """Whether a leader beyond has said nothing for `seconds`, though the bridge carried all that time."""
        carried = self._beat - max(heard_at, self._since)
        return self.state(now) == "carries" and carried >= seconds and now - self._beat >= BEHIND_S
