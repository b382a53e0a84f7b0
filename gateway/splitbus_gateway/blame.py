"""Why there is no plan: which limits are to blame, and the nearest to each that can be kept."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from splitbus_gateway import constraints
from splitbus_gateway.constraints import Bound, bounds_of
from splitbus_gateway.problem import Limits, NodeFacts, Problem, Split
from splitbus_gateway.search import Found, pick, search, weights_of
from splitbus_gateway.ways import find_routes
from splitbus_schemas.errors import UnsatisfiableError

_KEPT_FIRST = (
    "keep_on_device", "keep_on_site", "max_rebuilt", "must_not_run", "lossless_only", "min_agreement", "codecs",
    "must_run",
)  # fmt: skip
"""When limits can be kept only by giving up several others, these are not among those, if that can be."""


@dataclass(frozen=True)
class Blame:
    """A limit that cannot be kept beside the others; without it there would be a plan.

    `nearest` is the closest to it that can be kept, in its own unit; None where there is no such figure.
    `instead` is the way that does, `why` says so.
    """

    limit: str
    asked: str
    nearest: float | None
    instead: Split
    why: str

    def __str__(self) -> str:
        return f"{self.asked} cannot be kept: {self.why}"


@dataclass(frozen=True)
class _Question:
    problem: Problem
    bounds: tuple[Bound, ...]

    def best(self, term: str | None = None) -> Found | None:
        """The best way, or the one with the least of a term."""
        weights = {term: 1.0} if term else weights_of(self.problem.objective)
        return pick(search(self.problem, weights, self.bounds)[0])


_Relax: TypeAlias = Callable[[_Question], _Question]
_Nearest: TypeAlias = Callable[[_Question, Found], tuple[float | None, str]]


@dataclass(frozen=True)
class _Cause:
    """A limit that can be taken out of the question."""

    limit: str
    asked: str
    relax: _Relax
    nearest: _Nearest
    term: str | None = None
    """What the nearest has least of."""


def blame(problem: Problem, *, hard_deadline: bool = True) -> tuple[Blame, ...]:
    """The limits each of which is alone to blame that there is no plan; none when several are only together."""
    question, causes = _question(problem, hard_deadline=hard_deadline)
    return tuple(found for cause in causes if (found := _blame(question, cause)))


def unsatisfiable(problem: Problem, *, hard_deadline: bool) -> UnsatisfiableError:
    """The error that says which limits are to blame and what could be kept instead."""
    alone = blame(problem, hard_deadline=hard_deadline)
    if not alone:
        return UnsatisfiableError(_together(*_question(problem, hard_deadline=hard_deadline)))
    if len(alone) == 1:
        return UnsatisfiableError(str(alone[0]))
    return UnsatisfiableError(f"one of {len(alone)} limits must give way: {'; or '.join(map(str, alone))}")


def _question(problem: Problem, *, hard_deadline: bool) -> tuple[_Question, list[_Cause]]:
    bounds = tuple(bound for bound in bounds_of(problem) if hard_deadline or bound.limit != "deadline_ms")
    return _Question(problem, bounds), [*_bound_causes(bounds), *_limit_causes(problem)]


def _blame(question: _Question, cause: _Cause) -> Blame | None:
    found = cause.relax(question).best(cause.term)
    if found is None:
        return None
    nearest, why = cause.nearest(question, found)
    if nearest is None:
        without = f"without it {found.split} would do, in {found.ms:.1f} ms"
        return Blame(cause.limit, cause.asked, None, found.split, "; ".join(filter(None, (why, without))))
    return Blame(cause.limit, cause.asked, nearest, found.split, f"{why} ({found.split})")


def _together(question: _Question, causes: Sequence[_Cause]) -> str:
    """Give all up, then take back one after the other what can be kept: the rest is to blame together."""
    given_up = sorted(causes, key=lambda cause: (cause.limit not in _KEPT_FIRST, cause.limit))
    for cause in list(given_up):
        without = [other for other in given_up if other is not cause]
        if _relaxed(question, without).best():
            given_up = without
    found = _relaxed(question, given_up).best()
    names = " and ".join(cause.asked for cause in given_up)
    instead = f": without them {found.split} would do, in {found.ms:.1f} ms" if found else ""
    return f"{names} cannot be kept, nor one of them without the other{instead}"


def _relaxed(question: _Question, causes: Sequence[_Cause]) -> _Question:
    for cause in causes:
        question = cause.relax(question)
    return question


# What can be to blame


def _bound_causes(bounds: Sequence[Bound]) -> Iterator[_Cause]:
    for bound in bounds:

        def relax(question: _Question, bound: Bound = bound) -> _Question:
            return replace(question, bounds=tuple(other for other in question.bounds if other != bound))

        def nearest(_: _Question, found: Found, bound: Bound = bound) -> tuple[float, str]:
            figure = bound.figure(found.score)
            return figure, bound.best.format(figure)

        yield _Cause(bound.limit, bound.asked, relax, nearest, bound.term)


def _limit_causes(problem: Problem) -> Iterator[_Cause]:
    limits, own = problem.limits, {problem.device.node, problem.device.tier}
    if limits.lossless_only:
        yield _limit("lossless_only", constraints.LOSSLESS, lambda limits: replace(limits, lossless_only=False))
    if limits.codecs is not None:
        asked = constraints.only_codecs(limits.codecs)
        yield _limit("codecs", asked, lambda limits: replace(limits, codecs=None))
    for name in sorted(limits.must_run - own):
        yield _must_run(name)
    for name in sorted(limits.must_not_run - own):
        yield _must_not_run(name)
    yield _Cause("packets", "the brokers' packet limit", _larger_packets, _smallest_packets)


def _limit(limit: str, asked: str, without: Callable[[Limits], Limits], nearest: _Nearest | None = None) -> _Cause:
    def relax(question: _Question) -> _Question:
        problem = question.problem
        return replace(question, problem=replace(problem, limits=without(problem.limits)))

    return _Cause(limit, asked, relax, nearest or _no_figure)


def _no_figure(_: _Question, __: Found) -> tuple[None, str]:
    return None, ""


def _must_run(name: str) -> _Cause:
    def without(limits: Limits) -> Limits:
        return replace(limits, must_run=limits.must_run - {name})

    def reason(question: _Question, _: Found) -> tuple[None, str]:
        problem = question.problem
        blocked = [text for text in find_routes(problem)[1] if name in text.split()]
        there = any(name in (facts.node, facts.tier) for facts in problem.workers)
        return None, blocked[0] if blocked else "" if there else f"{name} is not there"

    return _limit("must_run", constraints.order_to_run(name), without, reason)


def _must_not_run(name: str) -> _Cause:
    def without(limits: Limits) -> Limits:
        return replace(limits, must_not_run=limits.must_not_run - {name})

    return _limit("must_not_run", constraints.order_not_to_run(name), without)


def _larger_packets(question: _Question, most: int = sys.maxsize) -> _Question:
    """Every node takes packets of `most` bytes at least."""

    def grown(facts: NodeFacts) -> NodeFacts:
        return facts if facts.max_packet_bytes >= most else replace(facts, max_packet_bytes=most)

    problem = question.problem
    workers = tuple(grown(facts) for facts in problem.workers)
    return replace(question, problem=replace(problem, device=grown(problem.device), workers=workers))


def _smallest_packets(question: _Question, _: Found) -> tuple[float, str]:
    """The least limit that would do, by halving: what fits into it fits into any larger one."""
    sizes = question.problem.codings.coded_bytes
    candidates = np.unique(sizes[np.isfinite(sizes)])
    low, high = 0, candidates.size - 1
    while low < high:
        middle = (low + high) // 2
        if _larger_packets(question, math.ceil(candidates[middle])).best():
            high = middle
        else:
            low = middle + 1
    nearest = float(candidates[low])
    return nearest, f"packets of {nearest:.0f} bytes would have to pass"
