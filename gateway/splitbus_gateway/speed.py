"""How fast nodes run now, against their profiles: ratios learned from the frames being run, per node and model. Pure.

A profile says what a node takes when it does nothing else. A ratio of 2 says that frames take twice that of late: the
node is loaded, hot, or was profiled wrongly. One that stays off with no load to explain it asks for a new profile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from splitbus_gateway.changes import Level, Sensitivity, follow
from splitbus_schemas.messages import NodeProfile, StreamStats

USUAL_WEIGHT: Final = 1 / 60
"""Of a sample in a pace's usual level: a minute's worth of frames."""

SETTLED: Final = 5
"""A level that is taken up again counts as so many samples."""

MIN_RATIO: Final = 0.2
MAX_RATIO: Final = 20.0
"""Beyond that it is not the node's speed that is off."""

PACE: Final = Sensitivity(slack=0.15, alarm=0.5, bound=0.6, memory=20)
"""Of the logarithm of the ratio, a sample a second: one slow second is harmless, two in a row at 1.5 times or more are
a change, and noise of a tenth averages out."""

FRESH_S: Final = 10.0
"""Frames that came no longer ago than that tell the speed of now."""

HALF_LIFE_S: Final = 120.0
"""After that the profile is believed again, by and by: nobody else tells when the load of an idle node has gone."""

DRIFT: Final = 1.25
DRIFT_S: Final = 30.0
"""Off by so much for so long without load to explain it, and the node is asked to profile again,"""

PATIENCE_S: Final = 300.0
MAX_PATIENCE_S: Final = 3600.0
"""but not sooner than that after the last time, twice as long each time that it did not help."""

Key: TypeAlias = tuple[str, str]
"""A node, or a device, and the model's key."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of a node's speed at a model: `level` is the logarithm of the ratio."""

    level: Level = field(default_factory=lambda: Level(0.0))
    seen_at: float = float("-inf")
    off_since: float | None = None
    """Since when it is off by more than `DRIFT` with no load to explain it."""
    profile: tuple[str, int] = ("", 0)
    """Boot and round of the profile that it is against."""
    usual: float = 0.0
    """The level as it was over the last minute or so, while the node did not call itself slow."""

    def log_ratio(self, now: float) -> float:
        """The level, fading when no frames come."""
        idle = max(0.0, now - self.seen_at - FRESH_S)
        return float(self.level.mean * 0.5 ** (idle / HALF_LIFE_S))


@dataclass(slots=True)
class _Asked:
    """When a node was asked to profile again, and how long until it may be asked once more."""

    round: int = 0
    at: float = float("-inf")
    patience_s: float = PATIENCE_S


class Speeds:
    """The paces of all nodes at all models."""

    def __init__(self) -> None:
        self._paces: dict[Key, Pace] = {}
        self._asked: dict[Key, _Asked] = {}
        self._heard: dict[Key, StreamStats] = {}
        self._told: dict[str, float] = {}

    def tell(self, node: str, factor: float | None, now: float) -> None:
        """What a node says itself: its runs take so many times as long as usual; None: as long as usual.

        Once it is well it is believed at once, for it gets no frames that could tell.
        """
        if factor is not None:
            self._told[node] = min(factor, MAX_RATIO)
        elif self._told.pop(node, None) is not None:
            mine = {key: pace for key, pace in self._paces.items() if key[0] == node}
            self._paces |= {key: _as_usual(pace, now) for key, pace in mine.items()}

    def is_slow(self, node: str) -> bool:
        """Whether the node says so itself."""
        return node in self._told

    def is_news(self, device: str, model: str, stats: StreamStats) -> bool:
        """Whether a device's report was not heard before and is of one plan alone, as the one before it was."""
        before = self._heard.get((device, model))
        self._heard[device, model] = stats
        return before is not None and before is not stats and (before.boot, before.epoch) == (stats.boot, stats.epoch)

    def note(
        self,
        node: str,
        profile: NodeProfile,
        model: str,
        *,
        predicted_ms: float,
        measured_ms: float,
        explained: bool,
        now: float,
    ) -> None:
        """Frames took `measured_ms` where the profile says `predicted_ms`; `explained` when others' jobs are why."""
        if not (predicted_ms > 0 and measured_ms > 0 and math.isfinite(measured_ms)):
            return
        key, against = (node, model), (profile.boot, profile.round)
        before = self._paces.get(key, Pace())
        if before.profile != against:
            before = Pace(profile=against)
        sample = math.log(min(max(measured_ms / predicted_ms, MIN_RATIO), MAX_RATIO))
        level = follow(replace(before.level, mean=before.log_ratio(now)), sample, PACE)
        off = abs(level.mean) > math.log(DRIFT) and not explained
        since = (now if before.off_since is None else before.off_since) if off else None
        usual = before.usual if node in self._told else _usual(before, sample)
        self._paces[key] = Pace(level, now, since, against, usual)
        self._ask_if_due(key, self._paces[key], now)

    def ratio(self, node: str, model: str, now: float) -> float:
        """How many times longer than its profile says a node takes now."""
        pace, told = self._paces.get((node, model), Pace()), self._told.get(node)
        level = pace.log_ratio(now)
        if told is not None:
            level = min(max(level, pace.usual + math.log(told)), math.log(MAX_RATIO))
        return math.exp(level)

    def round(self, node: str, model: str) -> int:
        """The round of profiles that the node should have answered."""
        asked = self._asked.get((node, model))
        return asked.round if asked else 0

    def forget(self, node: str) -> None:
        """The node was removed."""
        self._paces = {key: pace for key, pace in self._paces.items() if key[0] != node}
        self._asked = {key: asked for key, asked in self._asked.items() if key[0] != node}
        self._heard = {key: stats for key, stats in self._heard.items() if key[0] != node}
        self._told.pop(node, None)

    def _ask_if_due(self, key: Key, pace: Pace, now: float) -> None:
        asked = self._asked.setdefault(key, _Asked())
        if pace.off_since is None or now - pace.off_since <= DRIFT_S or now - asked.at < asked.patience_s:
            return
        again = asked.at > float("-inf")
        asked.patience_s = min(2 * asked.patience_s, MAX_PATIENCE_S) if again else PATIENCE_S
        asked.round, asked.at = asked.round + 1, now


def _usual(before: Pace, sample: float) -> float:
    """The usual level after one more sample, of which an odd one counts for little."""
    off = min(max(sample - before.usual, -PACE.bound), PACE.bound)
    return before.usual + USUAL_WEIGHT * off


def _as_usual(pace: Pace, now: float) -> Pace:
    """What was learned while the node was slow does not hold any more."""
    return Pace(Level(pace.usual, count=SETTLED), now, None, pace.profile, pace.usual)
