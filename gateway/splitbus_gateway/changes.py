"""Change-point detection: levels that average over jitter and step at once when a sum of deviations says so. Pure.

Two-sided CUSUM of E. S. Page, "Continuous inspection schemes", Biometrika 41 (1954): each side sums how far samples lie
beyond `slack`, never below zero; a sum above `alarm` is a change, and the level begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What counts as a change, in the samples' unit: one in which noise is even, the logarithm of a rate, say."""

    slack: float
    """A shift of the level that is still noise."""
    alarm: float
    """A sum of deviations beyond the slack that is none."""
    bound: float
    """What one sample may count for at most: `bound - slack` below `alarm` makes a single outlier harmless."""
    memory: int
    """So many samples make up a settled level."""
    fall: float | None = None
    """What one sample below the level may count for at most, where that is not `bound`."""


RATE: Final = Sensitivity(slack=0.2, alarm=0.8, bound=1.3, memory=50)
"""Of the logarithm of a reported rate. The nodes have taken single outliers out, so one report that is off by 2.7 is a
change; 1.5 takes five, and jitter of 20 % never adds up."""

ROUND_TRIP: Final = Sensitivity(slack=0.15, alarm=0.4, bound=0.5, memory=20, fall=0.6)
"""Of the logarithm of a reported round trip, which a queue stretches: two reports that are off by 1.5. Nothing makes
one shorter than it is: one report of little more than half is a change."""

BUSY: Final = Sensitivity(slack=0.1, alarm=0.3, bound=0.35, memory=10)
"""Of a worker's busy share, once a second: a busy second is no load, two of them are."""

QUEUE: Final = Sensitivity(slack=0.3, alarm=0.9, bound=1.0, memory=10)
"""Of log(1 + jobs in the queue)."""


@dataclass(frozen=True, slots=True)
class Level:
    """Where samples lie since the last change; `changes` counts those."""

    mean: float
    count: int = 1
    above: float = 0.0
    below: float = 0.0
    changes: int = 0


def follow(level: Level | None, sample: float, how: Sensitivity) -> Level:
    """The level after one more sample."""
    if level is None:
        return Level(sample)
    off = min(max(sample - level.mean, -(how.fall or how.bound)), how.bound)
    above = max(0.0, level.above + off - how.slack)
    below = max(0.0, level.below - off - how.slack)
    if max(above, below) > how.alarm:
        return Level(sample, changes=level.changes + 1)
    count = min(level.count + 1, how.memory)
    return replace(level, mean=level.mean + off / count, count=count, above=above, below=below)
