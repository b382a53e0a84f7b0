"""When a better plan is worth a change: gain beyond noise, dwell, and at once when the running plan broke. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from splitbus_gateway.pricing import Priced
from splitbus_gateway.problem import Objective

GAP_S: Final = 2.0
"""Two looks that are further apart say nothing of the time between."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Gains below `min_gain` (share) or `min_gain_ms` are not worth a change; `sharp` is a rise that waits for nothing.

    A change that undoes the last one waits `dwell_s` doubled for every such turn, up to `max_dwell_s`; `dwell_s` itself
    when the gain is as sharp. What it costs to load slices must be gained back within `payback_s`.

    A smaller gain, of `settled` times the least or more, is taken once it has stayed: after `settle_s` if it nearly is
    the least, later if it is smaller, for what is lost by waiting adds up (a cumulative sum, Page 1954).
    """

    min_gain: float = 0.10
    min_gain_ms: float = 2.0
    dwell_s: float = 2.0
    max_dwell_s: float = 60.0
    sharp: float = 1.5
    payback_s: float = 30.0
    settled: float = 0.3
    settle_s: float = 3.0


@dataclass(frozen=True, slots=True)
class History:
    """The last change: when, what the plan cost then, and how many changes in a row undid the one before.

    `leaning` is what has added up since for better ways, in seconds of the least gain; `weighed_at` is when they were
    looked at last, infinite for never. `free`: the better way was not there at the change, so nobody chose to leave it.
    """

    switched_at: float
    price_then: float
    turns: int = 0
    leaning: float = 0.0
    weighed_at: float = float("inf")
    free: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to change, and in a few words why."""

    switch: bool
    why: str


def lean(
    history: History, current: Priced, best: Priced, now: float, settings: Settings, objective: Objective
) -> History:
    """The history after one more look at a way that may be better: what speaks for it adds up, the rest takes off."""
    gain = current.score(objective) - best.score(objective)
    least = _least(current, settings, objective)
    sure = gain > max(_noise(current, best, objective), 0.0)
    speaks = (min(gain / least, 1.0) if least else 1.0) - settings.settled if sure else settings.settled - 1.0
    passed = max(0.0, min(now - history.weighed_at, GAP_S))
    return replace(history, leaning=max(0.0, history.leaning + speaks * passed), weighed_at=now)


def should_switch(
    current: Priced | None,
    best: Priced,
    now: float,
    history: History,
    settings: Settings,
    objective: Objective = Objective(),  # noqa: B008 - a frozen value
    *,
    breach: str = "",
) -> Verdict:
    """Whether `best` should replace `current` (None: it can no longer be run), both priced under today's facts.

    `breach` names a limit that `current` does not keep and `best` does: then no gain is needed.
    """
    if current is None:
        return Verdict(switch=True, why="the running plan can no longer be followed")
    if current.split == best.split:
        return Verdict(switch=False, why="the running plan is the best")
    costs, best_costs, unit = current.score(objective), best.score(objective), _unit(objective)
    gain = costs - best_costs
    least = _least(current, settings, objective)
    stays = history.leaning >= settings.settle_s * (1 - settings.settled)
    usual = max(settings.settled * least if stays else least, _noise(current, best, objective))
    needed = 0.0 if history.free else usual
    if gain <= needed and not breach:
        return Verdict(switch=False, why=f"{best.split} would gain {gain:.1f}{unit}, a change needs {needed:.1f}{unit}")
    if costs > settings.sharp * history.price_then:
        went = f"{history.price_then:.0f} to {costs:.0f}{unit}"
        return Verdict(switch=True, why=f"the running plan went from {went}")
    waited = now - history.switched_at
    dwell = settings.dwell_s
    if costs <= settings.sharp * best_costs:
        dwell = min(dwell * 2**history.turns, settings.max_dwell_s)
    if waited < dwell:
        return Verdict(switch=False, why=f"{best.split} would gain {gain:.1f}{unit}, changed {waited:.1f} s ago")
    return Verdict(switch=True, why=breach or f"{best.split} gains {gain:.1f}{unit}")


def _least(current: Priced, settings: Settings, objective: Objective) -> float:
    return max(settings.min_gain * current.score(objective), settings.min_gain_ms * objective.latency)


def _noise(current: Priced, best: Priced, objective: Objective) -> float:
    return max(current.noise_ms, best.noise_ms) * objective.latency


def pays(gain: float, cost_ms: float, frames_per_s: float | None, settings: Settings) -> bool:
    """Whether a gain per frame outweighs a cost paid once, over the frames to come; one a second when none came yet."""
    return gain * max(frames_per_s or 1.0, 1e-3) * settings.payback_s >= cost_ms


def _unit(objective: Objective) -> str:
    return " ms" if objective == Objective() else ""
