"""How often one kind of log line may come: a burst, then one in a while, with a count of those left out. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

BURST: Final = 10
PER_SECOND: Final = 0.2
"""One line of a kind in five seconds, in the long run."""

MAX_KINDS: Final = 256
"""Kinds remembered; the one that was silent longest is forgotten."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float
    left_out: int = 0


class LineLimit:
    """Token buckets by kind. Belongs to one thread at a time; times are monotonic seconds."""

    def __init__(self, burst: int = BURST, per_second: float = PER_SECOND, max_kinds: int = MAX_KINDS) -> None:
        self._burst, self._rate, self._max = burst, per_second, max_kinds
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, kind: Hashable, now: float) -> int | None:
        """None when the line is to be left out; else how many of its kind were since the last one that was not."""
        bucket = self._buckets.setdefault(kind, _Bucket(float(self._burst), now))
        self._buckets.move_to_end(kind)
        bucket.left = min(float(self._burst), bucket.left + max(0.0, now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.left < 1:
            bucket.left_out += 1
            return None
        bucket.left -= 1
        left_out, bucket.left_out = bucket.left_out, 0
        if len(self._buckets) > self._max:
            self._buckets.popitem(last=False)
        return left_out

    def quiet(self, now: float) -> list[tuple[Hashable, int]]:
        """The kinds of which lines were left out and which may speak again, each told once, with the count."""
        found = []
        for kind, bucket in self._buckets.items():
            if bucket.left_out and bucket.left + (now - bucket.at) * self._rate >= 1:
                found.append((kind, bucket.left_out))
                bucket.left_out = 0
        return found
