"""When a better plan is worth a change: gain beyond noise, dwell, and at once when the running plan broke. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from splitbus_gateway.pricing import Priced


@dataclass(frozen=True, slots=True)
class Settings:
    """Gains below `min_gain` (share) or `min_gain_ms` are not worth a change; `sharp` is a rise that waits for nothing.

    A change that undoes the last one waits `dwell_s` doubled for every such turn, up to `max_dwell_s`.
    """

    min_gain: float = 0.10
    min_gain_ms: float = 2.0
    dwell_s: float = 2.0
    max_dwell_s: float = 60.0
    sharp: float = 1.5


@dataclass(frozen=True, slots=True)
class History:
    """The last change: when, what the plan cost then, and how many changes in a row undid the one before."""

    switched_at: float
    price_then: float
    turns: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to change, and in a few words why."""

    switch: bool
    why: str


def should_switch(current: Priced | None, best: Priced, now: float, history: History, settings: Settings) -> Verdict:
    """Whether `best` should replace `current` (None: it can no longer be run), both priced under today's facts."""
    if current is None:
        return Verdict(switch=True, why="the running plan can no longer be followed")
    if current.split == best.split:
        return Verdict(switch=False, why="the running plan is the fastest")
    gain = current.ms - best.ms
    needed = max(settings.min_gain * current.ms, settings.min_gain_ms, best.noise_ms, current.noise_ms)
    if gain <= needed:
        return Verdict(switch=False, why=f"{best.split} would gain {gain:.1f} ms, a change needs {needed:.1f} ms")
    if current.ms > settings.sharp * history.price_then:
        return Verdict(switch=True, why=f"the running plan went from {history.price_then:.0f} to {current.ms:.0f} ms")
    waited = now - history.switched_at
    dwell = min(settings.dwell_s * 2**history.turns, settings.max_dwell_s)
    if waited < dwell:
        return Verdict(switch=False, why=f"{best.split} would gain {gain:.1f} ms, changed {waited:.1f} s ago")
    return Verdict(switch=True, why=f"{best.split} gains {gain:.1f} ms")
