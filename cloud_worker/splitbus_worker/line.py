"""The line of admitted jobs: bounded, devices take turns, and of each device the newest wins."""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

from splitbus_runtime.shelf import Slice
from splitbus_schemas.packet_types import Job

MAX_DEVICES: Final = 1024
"""Devices whose turns are remembered."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """An admitted job: its slice, when it arrived (monotonic seconds), and the train that brought it."""

    job: Job
    slice: Slice
    at: float
    train_bytes: int
    train_us: int
    expected_us: int

    def __str__(self) -> str:
        return f"frame {self.job.frame.seq} of {self.job.frame.device}"


class Line:
    """Tickets between the bus's thread and the executors. `ahead_us` is what lies before the next one."""

    def __init__(self, *, limit: int, per_device: int) -> None:
        self._limit = limit
        self._per_device = per_device
        self._lock = threading.Lock()
        self._waiting: list[Ticket] = []
        self._of_device: Counter[str] = Counter()
        self._signal: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._served: OrderedDict[str, int] = OrderedDict()
        self._turns = 0
        self.running = 0
        self.ahead_us = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def oldest_s(self, now: float) -> float:
        """How long the first in the line has waited."""
        with self._lock:
            return max(0.0, now - self._waiting[0].at) if self._waiting else 0.0

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
        """The next ticket, to be given back with `done`: the oldest of the device that was served longest ago.

        None when the line is closed.
        """
        while self._signal.get():
            with self._lock:
                if self._waiting:
                    ticket = min(self._waiting, key=lambda ticket: self._served.get(ticket.job.frame.device, 0))
                    self._note_turn(ticket.job.frame.device)
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

    def ahead_of(self, device: str) -> int:
        """Expected microseconds until the next frame of a device is served: what runs, and its rivals' turns."""
        with self._lock:
            if not self._waiting:
                return self.ahead_us
            own = self._of_device[device]
            turns: Counter[str] = Counter()
            ahead = self.ahead_us - sum(ticket.expected_us for ticket in self._waiting)
            for ticket in self._waiting:
                name = ticket.job.frame.device
                turns[name] += 1
                if name == device or turns[name] <= own + 1:
                    ahead += ticket.expected_us
            return ahead

    def _note_turn(self, device: str) -> None:
        self._turns += 1
        self._served[device] = self._turns
        self._served.move_to_end(device)
        if len(self._served) > MAX_DEVICES:
            self._served.popitem(last=False)

    def _leave(self, ticket: Ticket) -> None:
        device = ticket.job.frame.device
        self._waiting.remove(ticket)
        self.ahead_us -= ticket.expected_us
        self._of_device[device] -= 1
        if not self._of_device[device]:
            del self._of_device[device]
