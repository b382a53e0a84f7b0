"""When a better plan is worth a change: gain beyond noise, dwell, and at once when the running plan broke. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from splitbus_gateway.pricing import Priced
from splitbus_gateway.problem import Objective


@dataclass(frozen=True, slots=True)
class Settings:
    """Gains below `min_gain` (share) or `min_gain_ms` are not worth a change; `sharp` is a rise that waits for nothing.

    A change that undoes the last one waits `dwell_s` doubled for every such turn, up to `max_dwell_s`; `dwell_s` itself
    when the gain is as sharp. What it costs to load slices must be gained back within `payback_s`.
    """

    min_gain: float = 0.10
    min_gain_ms: float = 2.0
    dwell_s: float = 2.0
    max_dwell_s: float = 60.0
    sharp: float = 1.5
    payback_s: float = 30.0


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
    sure_ms = max(settings.min_gain_ms, best.noise_ms, current.noise_ms)
    needed = max(settings.min_gain * costs, sure_ms * objective.latency)
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


def pays(gain: float, cost_ms: float, frames_per_s: float | None, settings: Settings) -> bool:
    """Whether a gain per frame outweighs a cost paid once, over the frames to come; one a second when none came yet."""
    return gain * max(frames_per_s or 1.0, 1e-3) * settings.payback_s >= cost_ms


def _unit(objective: Objective) -> str:
    return " ms" if objective == Objective() else ""
