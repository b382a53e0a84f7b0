"""How many messages a device may send: a token bucket each, asked before a message is read. Pure.

What is dropped here costs the worker a look at its topic, so that a device that floods does not slow the others.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

TELL_SECONDS: Final = 5.0
"""A flood is told so often, with a count."""

MAX_DEVICES: Final = 1024
"""Devices remembered; the one that was silent longest is forgotten."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float
    dropped: int = 0
    told_at: float = float("-inf")


class Allowance:
    """So many messages a second for each device, and at once as many. Belongs to one thread; times are monotonic."""

    def __init__(self, per_second: float, max_devices: int = MAX_DEVICES) -> None:
        self._rate, self._max = per_second, max_devices
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, device: str, now: float) -> bool:
        """Whether a message of this device is to be read."""
        bucket = self._buckets.get(device)
        if bucket is None:
            bucket = self._buckets[device] = _Bucket(self._rate, now)
            if len(self._buckets) > self._max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(device)
        bucket.left = min(self._rate, bucket.left + max(0.0, now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.left < 1:
            bucket.dropped += 1
            return False
        bucket.left -= 1
        return True

    def to_tell(self, device: str, now: float) -> int:
        """How many messages of the device were dropped, when it is time to say so; else 0."""
        bucket = self._buckets.get(device)
        if bucket is None or not bucket.dropped or now - bucket.told_at < TELL_SECONDS:
            return 0
        dropped, bucket.dropped, bucket.told_at = bucket.dropped, 0, now
        return dropped
