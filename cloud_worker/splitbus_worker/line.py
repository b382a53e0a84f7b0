"""The line of admitted jobs: bounded, first come first served, and for each device the newest wins."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from dataclasses import dataclass

from splitbus_runtime.shelf import Slice
from splitbus_schemas.packet_types import Job


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """An admitted job: its slice, when it arrived (monotonic seconds), and the train that brought it."""

    job: Job
    slice: Slice
    at: float
    train_bytes: int
    train_us: int
    expected_us: int


class Line:
    """Tickets between the bus's thread and the executors. `ahead_us` is what lies before the next one."""

    def __init__(self, *, limit: int, per_device: int) -> None:
        self._limit = limit
        self._per_device = per_device
        self._lock = threading.Lock()
        self._waiting: list[Ticket] = []
        self._of_device: Counter[str] = Counter()
        self._signal: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.running = 0
        self.ahead_us = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def of_device(self, device: str) -> int:
        """How many tickets of a device wait."""
        return self._of_device[device]

    def join(self, ticket: Ticket) -> Ticket | None:
        """Wait to be served; gives the older ticket of the same device that had to leave, if one had."""
        device = ticket.job.frame.device
        with self._lock:
            old = None
            if self._of_device[device] >= self._per_device or len(self._waiting) >= self._limit:
                old = next((waiting for waiting in self._waiting if waiting.job.frame.device == device), None)
            if old is not None:
                self._leave(old)
            self._waiting.append(ticket)
            self._of_device[device] += 1
            self.ahead_us += ticket.expected_us
        if old is None:  # else the leaver's signal is there for this one
            self._signal.put(True)
        return old

    def take(self) -> Ticket | None:
        """The next ticket, to be given back with `done`; None when the line is closed."""
        while self._signal.get():
            with self._lock:
                if self._waiting:
                    ticket = self._waiting[0]
                    self._leave(ticket)
                    self.ahead_us += ticket.expected_us  # it is still ahead of the others until it is done
                    self.running += 1
                    return ticket
        return None

    def done(self, ticket: Ticket) -> None:
        """The ticket was served."""
        with self._lock:
            self.running -= 1
            self.ahead_us -= ticket.expected_us

    def close(self, takers: int) -> list[Ticket]:
        """Send the takers home; gives the tickets that were not served."""
        with self._lock:
            left = list(self._waiting)
            for ticket in left:
                self._leave(ticket)
        for _ in range(takers):
            self._signal.put(False)
        return left

    def _leave(self, ticket: Ticket) -> None:
        device = ticket.job.frame.device
        self._waiting.remove(ticket)
        self.ahead_us -= ticket.expected_us
        self._of_device[device] -= 1
        if not self._of_device[device]:
            del self._of_device[device]
