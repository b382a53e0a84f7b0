"""The best of all ways by any weights of their terms, exactly; what plans, blame and the Pareto list are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from splitbus_gateway.constraints import Bound, lacking, narrow
from splitbus_gateway.problem import Cut, Floats, Objective, Problem, Split
from splitbus_gateway.ways import Block, Route, Rows, Term, find_routes, measure

_TIE = 1e-9
"""Scores that differ by less are equal but for rounding."""


@dataclass(frozen=True)
class Found:
    """A way, its score and its latency."""

    score: float
    ms: float
    split: Split
    shape: tuple[tuple[str, ...], tuple[Cut, ...]]
    """Tiers and cuts: ways of one shape differ in the names of their workers only."""


def weights_of(objective: Objective) -> dict[str, float]:
    """The objective by the names of terms."""
    return {
        "latency": objective.latency,
        "interval": objective.interval,
        "kilobytes": objective.kilobytes,
        "device_ms": objective.device_ms,
    }


def allowed_routes(problem: Problem, bounds: Sequence[Bound]) -> Iterator[tuple[Route, list[Bound]]]:
    """Every route on which there are ways that keep the bounds, with the bounds that not all of them keep."""
    rows = Rows.of(problem)
    for nodes in find_routes(problem)[0]:
        if not lacking(problem, nodes):
            narrowed = narrow(measure(problem, rows, nodes), bounds)
            if narrowed:
                yield narrowed


def search(problem: Problem, weights: Mapping[str, float], bounds: Sequence[Bound]) -> tuple[list[Found], int]:
    """The best two ways along each route, in no order, and how many ways were considered.

    Two suffice: within one route every way has a shape of its own.
    """
    found: list[Found] = []
    considered = 0
    for route, open_bounds in allowed_routes(problem, bounds):
        best, total = _Best(problem, route), route.weighed(weights)
        for block in route.blocks():
            scores = _score(route, block, total, weights.get("interval", 0.0))
            forbid(route, block, open_bounds, scores)
            considered += int(np.count_nonzero(np.isfinite(scores)))
            best.take(block, scores.ravel())
        found += best.found
    return found, considered


def pick(found: Iterable[Found]) -> Found | None:
    """The best: ties go to the lower latency, then to fewer nodes, names, and the earlier cut and codec."""
    ways = list(found)
    if not ways:
        return None
    least = min(way.score for way in ways)
    near = (way for way in ways if way.score <= least + _slack(least))
    return min(near, key=lambda way: (way.ms, len(way.split.nodes), way.split))


def forbid(route: Route, block: Block, bounds: Iterable[Bound], scores: Floats) -> None:
    """Set those to infinity that are no ways, or break a bound."""
    if block.order is not None:
        corner = scores[:, : block.order.shape[1]]
        corner[~block.order] = np.inf
    for bound in bounds:
        scores[route.terms[bound.term].over(block) > bound.slack] = np.inf


def _score(route: Route, block: Block, total: Term | None, interval: float) -> Floats:
    scores = total.over(block) if total else np.zeros_like(route.terms["latency"].over(block))
    if interval:
        scores += interval * route.interval(block)
    return scores


def _slack(score: float) -> float:
    return _TIE * max(1.0, abs(score))


class _Best:
    """The best two ways along a route, block by block."""

    def __init__(self, problem: Problem, route: Route) -> None:
        self.found: list[Found] = []
        self._problem, self._route = problem, route
        self._worst = np.inf

    def take(self, block: Block, scores: Floats) -> None:
        """Look at a block's ways; what cannot be used has the score infinity."""
        for _ in range(2):
            least = scores.min(initial=np.inf)
            if not np.isfinite(least) or least > self._worst + _slack(self._worst):
                return
            place, ms = self._first(block, np.flatnonzero(scores <= least + _slack(least)))
            split = self._route.split(self._problem, block, place)
            self._add(Found(float(scores[place]), ms, split, (self._route.tiers, split.cuts)))
            scores[place] = np.inf

    def _first(self, block: Block, places: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> tuple[int, float]:
        delays = self._route.terms["latency"].at(block, places)
        fastest = int(delays.argmin())
        return int(places[fastest]), float(delays[fastest])

    def _add(self, way: Found) -> None:
        ways = [*self.found, way]
        best = pick(ways)
        second = pick(other for other in ways if other is not best)
        self.found = [found for found in (best, second) if found]
        self._worst = self.found[1].score if len(self.found) == 2 else np.inf
