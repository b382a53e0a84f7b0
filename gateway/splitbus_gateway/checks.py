"""Predicted against measured: what a plan's frames took, step by step, beside what the planner had said. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias

from splitbus_schemas.messages import Plan, Step, StreamStats

WEIGHT: Final = 0.2
"""Of the newest second in what has been measured; the first few seconds count alike."""

MOST: Final = 0.8
"""So many of a second's frames must have gone the plan's own way for that second to be believed."""

_STAGES: Final = MappingProxyType(dict.fromkeys(("run", "encode", "decode"), "compute"))
"""Quantising is done by the slice: predicted as encoding and decoding, but measured as running."""

_Key: TypeAlias = tuple[str, str]
"""What, and where."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the frames of one plan took, over its seconds so far."""

    epoch: int
    seconds: int = 0
    total_ms: float = 0.0
    steps: Mapping[_Key, float] = field(default_factory=dict)

    def as_steps(self) -> list[Step]:
        """For a decision."""
        return [_step(what, where, ms) for (what, where), ms in self.steps.items()]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a way: all computing on a node, a queue, or all links of a round together."""

    what: str
    where: str
    predicted_ms: float | None
    measured_ms: float | None

    @property
    def ratio(self) -> float | None:
        """Measured over predicted; None when either is missing or next to nothing was predicted."""
        if self.measured_ms is None or not self.predicted_ms or self.predicted_ms < 0.01:
            return None
        return self.measured_ms / self.predicted_ms


def note(before: Measured | None, plan: Plan, stats: StreamStats) -> Measured | None:
    """With one more report of the device; what it says of another plan or another way teaches nothing."""
    known = before if before and before.epoch == plan.epoch else None
    if (stats.plan, stats.epoch) != (plan.plan, plan.epoch) or stats.p50_ms is None:
        return known
    if stats.routes.get(route_of(plan), 0) < MOST * sum(stats.routes.values()):
        return known
    old = known or Measured(plan.epoch)
    weight = max(WEIGHT, 1 / (old.seconds + 1))
    steps = {
        key: old.steps.get(key, ms) + weight * (ms - old.steps.get(key, ms)) for key, ms in _sums(stats.steps).items()
    }
    total = old.total_ms + weight * (stats.p50_ms - old.total_ms)
    return Measured(plan.epoch, old.seconds + 1, total, steps)


def route_of(plan: Plan) -> str:
    """The plan's own way as statistics name it: the nodes that run something."""
    nodes = [stage.node for stage in plan.routes[0] if stage.slice] if plan.routes and not plan.is_local else []
    return ">".join([plan.device, *nodes])


def off(predicted_ms: float, measured: Measured | None) -> float | None:
    """By which share the frames took longer than predicted; negative when they were faster."""
    if measured is None or not measured.seconds or predicted_ms <= 0:
        return None
    return measured.total_ms / predicted_ms - 1


def beside(predicted: Sequence[Step], measured: Sequence[Step], total_ms: float | None = None) -> list[Stage]:
    """Predicted and measured stage by stage; what `total_ms` has beyond the measured steps is `other`."""
    first, second = _sums(predicted, _STAGES), _sums(measured, _STAGES)
    # Durations tell only the links of a whole round together.
    rounds = [where for what, where in second if what == "link"]
    if len(rounds) == 1:
        parts = {key: ms for key, ms in first.items() if key[0] == "link"}
        if {where for _, where in parts} == {f"{a}>{b}" for a, b in pairwise(rounds[0].split(">"))}:
            first = {key: ms for key, ms in first.items() if key not in parts}
            first["link", rounds[0]] = sum(parts.values())
    stages = [Stage(*key, first.get(key), second.get(key)) for key in dict.fromkeys([*first, *second])]
    rest = total_ms - sum(second.values()) if total_ms is not None and second else 0.0
    return [*stages, Stage("other", "", None, rest)] if rest > 0 else stages


def _sums(steps: Iterable[Step], names: Mapping[str, str] = MappingProxyType({})) -> dict[_Key, float]:
    """Milliseconds by kind, renamed by `names`, and place."""
    total: dict[_Key, float] = {}
    for step in steps:
        key = (names.get(step.what, step.what), step.where)
        total[key] = total.get(key, 0.0) + step.ms
    return total


def _step(what: str, where: str, ms: float) -> Step:
    return Step.model_validate({"what": what, "where": where, "ms": round(ms, 3)})
