"""A clock that only goes forward, whatever the one that it is fed from does."""

from __future__ import annotations

from typing import Final

LEAP_S: Final = 60.0
"""Nothing that the gateway does takes so long: the machine slept, or somebody set its clock."""


class SteadyClock:
    """The time that passed, without the source's jumps: to plans and patience, those took no time at all."""

    def __init__(self, now: float) -> None:
        self.now = self._source = now

    def read(self, source: float) -> float:
        """The time when the source says `source`; `jumped` tells whether that was believed."""
        passed = source - self._source
        self._source = source
        self.jumped = not 0 <= passed <= LEAP_S
        self.now += 0.0 if self.jumped else passed
        return self.now

    jumped: bool = False
    """Whether the last reading was a jump."""
