"""What happens in the demo, and when: the phases of the camera's link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from splitbus_demo.line import Link

GOOD: Final = Link(up_mbit=50, down_mbit=50, delay_ms=2)
POOR: Final = Link(up_mbit=4, down_mbit=8, delay_ms=5)

MIN_SECONDS: Final = 20.0
"""Shorter phases would end before a plan has been decided, loaded and followed."""


@dataclass(frozen=True)
class Phase:
    """A stretch of time with one link; None is a cut."""

    name: str
    link: Link | None
    share: float

    def describe(self) -> str:
        """For people."""
        if self.link is None:
            return "cut"
        return f"{self.link.up_mbit:g}/{self.link.down_mbit:g} Mbit/s, {2 * self.link.delay_ms:g} ms"


PHASES: Final = (
    Phase("good", GOOD, 0.3),
    Phase("poor", POOR, 0.3),
    Phase("cut", None, 0.12),
    Phase("good again", GOOD, 0.28),
)


@dataclass(frozen=True)
class Act:
    """A phase as it was played, by time.monotonic()."""

    phase: Phase
    begin: float
    end: float


def phase_at(acts: list[Act], when: float) -> Phase | None:
    """The phase in which a moment lies."""
    return next((act.phase for act in acts if act.begin <= when < act.end), None)
