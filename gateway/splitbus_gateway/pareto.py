"""The ways worth having: those that no other beats in latency, loss, bytes and the device's memory at once. Exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splitbus_gateway.blame import unsatisfiable
from splitbus_gateway.constraints import Bound, bounds_of
from splitbus_gateway.pricing import Priced, node_facts, price
from splitbus_gateway.problem import Floats, Problem, Split
from splitbus_gateway.search import allowed_routes
from splitbus_gateway.ways import Ints, Route

TERMS: Final = ("latency", "loss", "kilobytes", "device_mb")
_DIGITS = 9
"""Figures that differ less are equal but for rounding."""

_Places: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Ways along a route: a row of `places` each, with a column for each leg, and of `figures`, one for each term."""

    route: Route
    places: _Places
    figures: Floats

    def split(self, problem: Problem, way: int) -> Split:
        cuts = (rows.cut(problem, place) for rows, place in zip(self.route.rows, self.places[way], strict=True))
        return Split(self.route.nodes, tuple(cuts))


def pareto(problem: Problem) -> tuple[Priced, ...]:
    """Of all ways within the limits, the deadline too, those that no other beats or equals, by rising latency.

    Of ways that are equal in all four figures the first is taken: fewer nodes, then names. Raises UnsatisfiableError
    as `plan` does. What a device's slice takes in memory counts only where it is known.
    """
    node_facts(problem, problem.device.node)
    found = [_candidates(route, bounds) for route, bounds in allowed_routes(problem, bounds_of(problem))]
    if not sum(len(some.figures) for some in found):
        raise unsatisfiable(problem, hard_deadline=True)
    owner = np.repeat(np.arange(len(found)), [len(some.figures) for some in found])
    begins = np.concatenate([np.arange(len(some.figures)) for some in found])
    best = unbeaten(np.concatenate([some.figures for some in found]))
    ways = [price(problem, found[owner[place]].split(problem, int(begins[place]))) for place in best]
    return tuple(sorted(ways, key=lambda way: (way.ms, way.loss, way.bytes)))


def unbeaten(figures: Floats) -> Ints:
    """The rows that no other row beats or equals, less being better; of equal rows the first."""
    if not figures.size:
        return np.arange(len(figures))
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in np.round(figures, _DIGITS).T], axis=1)
    # A row that beats another has the smaller sum of ranks, so that it is looked at before.
    left = np.argsort(ranks.sum(axis=1), kind="stable")
    kept = []
    while left.size:
        kept.append(left[0])
        left = left[(ranks[left] < ranks[left[0]]).any(axis=1)]
    return np.array(kept, dtype=np.intp)


def _candidates(route: Route, bounds: Sequence[Bound]) -> _Candidates:
    """The ways along a route, less some that others along it beat."""
    places = np.concatenate(list(_places(route)))
    figures = np.stack([_figures(route, term, places) for term in TERMS], axis=1)
    kept = np.ones(len(places), dtype=np.bool_)
    for bound in bounds:
        kept &= _figures(route, bound.term, places) <= bound.slack
    return _Candidates(route, places[kept], figures[kept])


def _figures(route: Route, term: str, places: _Places) -> Floats:
    figures = np.full(len(places), route.terms[term].const)
    for leg, column in zip(route.terms[term].legs, places.T, strict=True):
        figures += leg[column]
    return figures


def _places(route: Route) -> Iterator[_Places]:
    """For two legs, the rows for each first cut that no other beats there: whatever they go with, it would beat theirs.

    That holds within bounds as well: whatever bounds a sum of both legs bounds one of the terms that are compared.
    """
    yield np.zeros((0, len(route.rows)), dtype=np.intp)
    if len(route.rows) < 2:
        sizes = [rows.at.size for rows in route.rows]
        yield np.indices(sizes).reshape(len(sizes), -1).T if sizes else np.zeros((1, 0), dtype=np.intp)
        return
    one, two = (rows.at for rows in route.rows)
    behind = two.size
    later = np.arange(0)
    for cut in np.unique(one)[::-1]:
        begin = int(np.searchsorted(two, cut, side="right"))
        later = _leg_unbeaten(route, 1, np.concatenate([np.arange(begin, behind), later]))
        behind = begin
        first = _leg_unbeaten(route, 0, np.flatnonzero(one == cut))
        yield np.stack([np.repeat(first, later.size), np.tile(later, first.size)], axis=1)


def _leg_unbeaten(route: Route, leg: int, rows: Ints) -> Ints:
    return rows[unbeaten(np.stack([route.terms[term].legs[leg][rows] for term in TERMS], axis=1))]
