"""Which plan wins over the rate and the round trip of the device's links. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splitbus_gateway.planner import plan
from splitbus_gateway.problem import Flags, Floats, LinkFacts, Objective, Problem, Split
from splitbus_schemas.errors import ConfigError, UnsatisfiableError

Ends: TypeAlias = tuple[str, str]

NONE: Final = -1
"""Marks a place where no plan meets the demands."""

MIN_MBIT: Final = 0.1
MIN_RTT_MS: Final = 1.0


@dataclass(frozen=True)
class Spot:
    """A state of the access link: rate up in Mbit/s, round trip in ms."""

    up_mbit: float
    rtt_ms: float


@dataclass(frozen=True, slots=True)
class Heart:
    """A place deep inside a region, and how many places the region spans along its row and its column."""

    row: int
    column: int
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Atlas:
    """The winner at each rate (column) and round trip (row): an index into `plans`, most frequent first, or NONE."""

    link: Ends
    rates: Floats
    rtts: Floats
    winners: NDArray[np.int64]
    plans: tuple[Split, ...]
    today: Spot
    today_plan: Split | None
    """None when no plan meets the demands today."""
    asked: int
    """How often the planner was asked; the rest follows."""

    def share(self, index: int) -> float:
        """The share of the map that a plan wins."""
        return float((self.winners == index).mean())

    def heart(self, index: int) -> Heart:
        """Where a plan's region is widest."""
        left = core = np.pad(self.winners == index, 1)
        while left.any():
            core, left = left, left.copy()
            left[1:-1, 1:-1] &= core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
        places = np.argwhere(core[1:-1, 1:-1])
        row, column = (int(place) for place in places[len(places) // 2])
        width = _stretch(self.winners[row] == index, column)
        return Heart(row, column, width, _stretch(self.winners[:, column] == index, row))

    def at(self, spot: Spot) -> tuple[int, int]:
        """Row and column nearest to a spot."""
        return (
            int(np.abs(np.log(self.rtts) - np.log(max(spot.rtt_ms, MIN_RTT_MS))).argmin()),
            int(np.abs(np.log(self.rates) - np.log(max(spot.up_mbit, MIN_MBIT))).argmin()),
        )


def _stretch(inside: Flags, place: int) -> int:
    """How many neighbours of a place, itself included, are inside with it."""
    outside = np.flatnonzero(~inside)
    after = outside[outside > place]
    before = outside[outside < place]
    return int((after[0] if after.size else inside.size) - (before[-1] if before.size else -1) - 1)


def access_link(problem: Problem, receiver: str | None = None) -> Ends:
    """The device's link that the map varies: to `receiver`, else the fastest. Raises ConfigError without one."""
    device = problem.device.node
    known = {
        ends: facts.up_mbit
        for ends, facts in problem.links.items()
        if ends[0] == device and facts.up_mbit and facts.rtt_ms is not None and receiver in (None, ends[1])
    }
    if not known:
        raise ConfigError(f"no link from {device} to {receiver or 'any worker'} is known: give one with --link")
    return max(sorted(known), key=lambda ends: known[ends])


def today(problem: Problem, link: Ends) -> Spot:
    """Where the link stands."""
    facts = problem.links[link]
    return Spot(facts.up_mbit or MIN_MBIT, facts.rtt_ms or 0.0)


def moved(problem: Problem, link: Ends, spot: Spot, down_mbit: float | None = None) -> Problem:
    """The question when the access link is at `spot`: the device's other links keep their ratio and their extra delay.

    They share its way into the network. The way down moves in the same ratio unless it is given.
    """
    here = today(problem, link)
    scale = spot.up_mbit / here.up_mbit
    down = scale if down_mbit is None else down_mbit / (problem.links[link].down_mbit or here.up_mbit)
    links: Mapping[Ends, LinkFacts] = {
        ends: replace(
            facts,
            up_mbit=_times(facts.up_mbit, scale),
            down_mbit=_times(facts.down_mbit, down),
            rtt_ms=None if facts.rtt_ms is None else spot.rtt_ms + max(0.0, facts.rtt_ms - here.rtt_ms),
        )
        if ends[0] == problem.device.node
        else facts
        for ends, facts in problem.links.items()
    }
    return replace(problem, links=links)


def _times(rate: float | None, scale: float) -> float | None:
    return None if rate is None else rate * scale


def axis(low: float, high: float, count: int) -> Floats:
    """`count` values from `low` to `high`, evenly on a logarithmic scale. Raises ConfigError for what is no range."""
    if not 0 < low < high or count < 2:
        raise ConfigError(f"{low:g} to {high:g} in {count} steps is no axis: give two rising values above 0")
    return np.geomspace(low, high, count)


def draw(problem: Problem, link: Ends, rates: Floats, rtts: Floats) -> Atlas:
    """The map over these rates and round trips; a deadline is kept, or there is no plan.

    A way's latency is linear in round trip and time per byte, so a plan's region is convex in them: where the corners
    of a rectangle have one winner, so has all of it, and only borders are looked at closely. Where that does not hold,
    every place is priced.
    """
    sketch = _Sketch(problem, link, rates, rtts)
    if _is_convex(problem):
        sketch.fill(0, len(rtts) - 1, 0, len(rates) - 1)
    else:
        for row in range(len(rtts)):
            for column in range(len(rates)):
                sketch.ask(row, column)
    winners, plans = _by_area(sketch.winners, sketch.plans)
    return Atlas(link, rates, rtts, winners, plans, today(problem, link), _best(problem), sketch.asked)


def _is_convex(problem: Problem) -> bool:
    objective = problem.objective
    in_time = problem.limits.deadline_ms is None or objective == Objective()
    return in_time and not objective.interval and problem.every_ms is None


def _best(problem: Problem) -> Split | None:
    try:
        return plan(problem, hard_deadline=True).best.split
    except UnsatisfiableError:
        return None


class _Sketch:
    """The map in the making."""

    def __init__(self, problem: Problem, link: Ends, rates: Floats, rtts: Floats) -> None:
        self._problem, self._link, self._rates, self._rtts = problem, link, rates, rtts
        self._known = np.zeros((len(rtts), len(rates)), np.bool_)
        self.winners = np.full((len(rtts), len(rates)), NONE, np.int64)
        self.plans: list[Split] = []
        self.asked = 0

    def ask(self, row: int, column: int) -> int:
        """The winner at one place."""
        if not self._known[row, column]:
            self.asked += 1
            self._known[row, column] = True
            spot = Spot(float(self._rates[column]), float(self._rtts[row]))
            self.winners[row, column] = self._winner(moved(self._problem, self._link, spot))
        return int(self.winners[row, column])

    def fill(self, top: int, bottom: int, left: int, right: int) -> None:
        """All places of a rectangle, borders included."""
        corners = {self.ask(row, column) for row in (top, bottom) for column in (left, right)}
        if len(corners) == 1:
            self.winners[top : bottom + 1, left : right + 1] = corners.pop()
            self._known[top : bottom + 1, left : right + 1] = True
            return
        if bottom - top <= 1 and right - left <= 1:
            return
        row, column = (top + bottom) // 2, (left + right) // 2
        for rows in ((top, row), (row, bottom)) if bottom - top > 1 else ((top, bottom),):
            for columns in ((left, column), (column, right)) if right - left > 1 else ((left, right),):
                self.fill(*rows, *columns)

    def _winner(self, problem: Problem) -> int:
        split = _best(problem)
        if split is None:
            return NONE
        if split not in self.plans:
            self.plans.append(split)
        return self.plans.index(split)


def _by_area(winners: NDArray[np.int64], plans: Sequence[Split]) -> tuple[NDArray[np.int64], tuple[Split, ...]]:
    """The same with the plans that win most first."""
    order = sorted(range(len(plans)), key=lambda index: (-int((winners == index).sum()), str(plans[index])))
    places = np.full(len(plans) + 1, NONE, np.int64)
    places[order] = np.arange(len(order))
    return places[winners], tuple(plans[index] for index in order)
