"""What came already: exact for numbers that are authentic, a short memory for frames in clear. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from splitbus_schemas.packet_types import Job

WINDOW: Final = 1024
"""Packets may overtake each other by so many; one connection keeps their order, and a few are under way at once."""

MAX_RECENT: Final = 8192
"""Frames in clear that are remembered, of all devices: a minute at 120 frames a second, and 3 MB."""


class ReplayWindow:
    """The numbers of one session that came: each is new once. What is too far behind the highest is not new."""

    def __init__(self) -> None:
        self._highest = -1
        self._came = 0
        """Bit i: the number `highest - i` came."""

    def is_new(self, number: int) -> bool:
        """Whether it may be taken."""
        behind = self._highest - number
        return behind < 0 or (behind < WINDOW and not self._came >> behind & 1)

    def take(self, number: int) -> bool:
        """Whether it was new; from now on it is not."""
        if not self.is_new(number):
            return False
        ahead = number - self._highest
        if ahead > 0:
            self._came = (self._came << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
            self._highest = number
        else:
            self._came |= 1 << -ahead
        return True


class RecentFrames:
    """Jobs in clear that ran lately. Whoever may write one may number it anew: this stops accidents, not thieves."""

    def __init__(self, limit: int = MAX_RECENT) -> None:
        self._limit = limit
        self._ran: OrderedDict[tuple[object, ...], None] = OrderedDict()

    def ran(self, job: Job) -> bool:
        """Whether it is a copy: another attempt is none, nor is the frame at a later stage of its route."""
        return _name(job) in self._ran

    def note(self, job: Job) -> None:
        """It is about to run; a job that is refused may come again."""
        self._ran[_name(job)] = None
        if len(self._ran) > self._limit:
            self._ran.popitem(last=False)


def _name(job: Job) -> tuple[object, ...]:
    frame = job.frame
    return frame.device, frame.boot, frame.seq, job.attempt, len(job.route), job.route[0].slice
