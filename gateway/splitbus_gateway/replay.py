"""A trace of a link, frame by frame: what our plans take along it, what rivals take, what hindsight would. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splitbus_gateway.atlas import Ends, Spot, moved
from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.planner import plan
from splitbus_gateway.policies import POLICIES, Policy
from splitbus_gateway.pricing import Priced
from splitbus_gateway.problem import Floats, Objective, Problem, Split
from splitbus_gateway.rehearsal import Change, Rehearsal, price_or_local, truth_of
from splitbus_gateway.state import World
from splitbus_gateway.stream import StreamSettings
from splitbus_gateway.trace import Moment, Trace
from splitbus_schemas.errors import ConfigError

Progress: TypeAlias = Callable[[int, int], None]
"""Frames done, and frames in all."""

DEFAULT_FPS: Final = 10.0
MAX_FRAMES: Final = 1_000_000
OURS: Final = "splitbus"
STATIC: Final = "best-static"

_ALIKE: Final = 1.5
"""Moments whose rate and round trip differ by less than this factor are one segment."""


@dataclass(frozen=True, eq=False)
class Course:
    """What one policy did: per frame its latency and which of `splits` it ran, and how often it changed."""

    name: str
    about: str
    ms: Floats
    ran: NDArray[np.int64]
    splits: tuple[Split, ...]

    @property
    def changes(self) -> int:
        return int((self.ran[1:] != self.ran[:-1]).sum())


@dataclass(frozen=True)
class Segment:
    """Neighbouring moments that are alike: its frames, the means over it, and the way that is best most often."""

    begin: float
    end: float
    frames: slice
    mean: Spot
    best: Split


@dataclass(frozen=True, eq=False)
class Replay:
    """All policies along a trace; `best_ms` is the best way of each moment, known beforehand and changed to at once."""

    trace: Trace
    at: Floats
    best_ms: Floats
    courses: tuple[Course, ...]
    segments: tuple[Segment, ...]
    changes: tuple[Change, ...]

    def course(self, name: str) -> Course:
        """The course of that name. Raises KeyError."""
        return next(course for course in self.courses if course.name == name)

    def regret_ms(self, course: Course) -> float:
        """Mean milliseconds a frame above hindsight."""
        return float(course.ms.mean() - self.best_ms.mean())


def silent(_done: int, _total: int) -> None:
    """No progress shown."""


def replay(
    world: World,
    problem: Problem,
    model: ModelFacts,
    link: Ends,
    trace: Trace,
    settings: StreamSettings,
    *,
    fps: float = DEFAULT_FPS,
    policies: Sequence[Policy] = POLICIES,
    progress: Progress = silent,
) -> Replay:
    """Run the trace through our own change logic and through the policies; `world` is used up.

    Frames do not wait for each other: a frame's latency is the price of its way under the link at its start, at most
    the deadline or a local run, whichever is longer, for what is late is answered locally. Raises ConfigError.
    """
    if problem.objective != Objective():
        raise ConfigError("a replay compares latencies: leave --objective out")
    count = max(1, round(trace.seconds * fps))
    if count > MAX_FRAMES:
        raise ConfigError(f"{count} frames are more than {MAX_FRAMES}: take a part of the trace, or fewer frames")
    at = trace.begin + np.arange(count) / fps
    scene = _Scene(replace(problem, every_ms=None), link, trace)
    moments = [trace.at(float(second)) for second in at]
    ours, changes = _rehearse(scene, world, model, settings, at, progress)
    courses = [
        _course(scene, OURS, "plans that move with the link, by the gateway's own rules", moments, ours),
        _course(scene, STATIC, "the one split that is best on average, known beforehand", moments, _static(scene)),
        *(_course(scene, p.name, p.about, moments, scene.choices(p, moments)) for p in policies),
    ]
    best_ms = np.array([scene.cost(moment, scene.best(moment)) for moment in moments])
    return Replay(trace, at, best_ms, tuple(courses), _segments(scene, at), _since(changes, trace.begin))


def _since(changes: Sequence[Change], begin: float) -> tuple[Change, ...]:
    """The changes along the trace, and first the one that was in force when it began."""
    before = [replace(change, at=begin) for change in changes if change.at <= begin]
    return (*before[-1:], *(change for change in changes if change.at > begin))


class _Scene:
    """The question at each moment, and prices that were asked for."""

    def __init__(self, problem: Problem, link: Ends, trace: Trace) -> None:
        self.problem, self.link, self.trace = problem, link, trace
        self.truth = truth_of(problem, link, trace)
        self.best = cache(self._best)
        self.price = cache(self._price)

    def at(self, moment: Moment) -> Problem:
        return self.truth(moment.at)

    def _best(self, moment: Moment) -> Split:
        return plan(self.at(moment)).best.split

    def _price(self, moment: Moment, split: Split) -> Priced:
        return price_or_local(self.at(moment), split)

    def cost(self, moment: Moment, split: Split) -> float:
        """Milliseconds until the answer, which is a local one when the way is too slow."""
        ms, deadline = self.price(moment, split).ms, self.problem.limits.deadline_ms
        return ms if deadline is None else min(ms, max(deadline, self.price(moment, self.local).ms))

    @property
    def local(self) -> Split:
        return Split((self.problem.device.node,))

    def choices(self, policy: Policy, moments: Sequence[Moment]) -> list[Split]:
        """What the policy runs: it knows the link as the frame before found it."""
        choose = cache(lambda moment: policy.choose(self.at(moment)))
        return [choose(moment) for moment in (moments[0], *moments[:-1])]


def _course(scene: _Scene, name: str, about: str, moments: Sequence[Moment], ran: Sequence[Split] | Split) -> Course:
    each = [ran] * len(moments) if isinstance(ran, Split) else list(ran)
    splits = tuple(dict.fromkeys(each))
    places = {split: place for place, split in enumerate(splits)}
    ms = np.array([scene.cost(moment, split) for moment, split in zip(moments, each, strict=True)])
    return Course(name, about, ms, np.array([places[split] for split in each], np.int64), splits)


def _rehearse(
    scene: _Scene, world: World, model: ModelFacts, settings: StreamSettings, at: Floats, progress: Progress
) -> tuple[list[Split], list[Change]]:
    device = scene.problem.device.node
    rehearsal = Rehearsal(world, model, scene.truth, device, settings, scene.trace.begin)
    ran = []
    for number, second in enumerate(at.tolist(), start=1):
        rehearsal.run(second)
        ran.append(rehearsal.split)
        rehearsal.frame(scene.price(scene.trace.at(second), rehearsal.split))
        progress(number, len(at))
    return ran, rehearsal.changes


def _static(scene: _Scene) -> Split:
    """The split with the least mean latency over the trace.

    Latency is linear in round trip and time per byte, so the best at their means is the best of all splits; with a
    deadline it is not, and those that are best at some moment are tried as well.
    """
    moments, weights = scene.trace.moments, np.array(scene.trace.durations())
    up, down, rtt = (np.array(column) for column in zip(*(moment.state for moment in moments), strict=True))

    def mean(values: Floats) -> float:
        return float(np.average(values, weights=weights))

    middle = moved(scene.problem, scene.link, Spot(1 / mean(1 / up), mean(rtt)), 1 / mean(1 / down))
    candidates = dict.fromkeys([plan(middle).best.split, *map(scene.best, moments), scene.local])
    return min(candidates, key=lambda split: mean(np.array([scene.cost(moment, split) for moment in moments])))


def _segments(scene: _Scene, at: Floats) -> tuple[Segment, ...]:
    groups: list[list[Moment]] = []
    for moment in scene.trace.moments:
        if groups and _alike(groups[-1][0], moment):
            groups[-1].append(moment)
        else:
            groups.append([moment])
    ends = [*(group[0].at for group in groups[1:]), scene.trace.end]
    return tuple(_segment(scene, group, end, at) for group, end in zip(groups, ends, strict=True))


def _alike(one: Moment, other: Moment) -> bool:
    pairs = ((one.up_mbit, other.up_mbit), (one.rtt_ms + 1.0, other.rtt_ms + 1.0))
    return all(1 / _ALIKE < b / a < _ALIKE for a, b in pairs)


def _segment(scene: _Scene, group: Sequence[Moment], end: float, at: Floats) -> Segment:
    best = Counter(map(scene.best, group)).most_common(1)[0][0]
    frames = slice(int(np.searchsorted(at, group[0].at)), int(np.searchsorted(at, end)))
    rate = float(np.mean([moment.up_mbit for moment in group]))
    return Segment(group[0].at, end, frames, Spot(rate, float(np.mean([moment.rtt_ms for moment in group]))), best)
