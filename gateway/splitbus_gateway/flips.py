"""What would have to change for the runner-up to win: for each link and node, the figure at which the two tie. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal, TypeAlias

from splitbus_gateway.pricing import price
from splitbus_gateway.problem import LinkFacts, NodeFacts, Problem, Split
from splitbus_schemas.errors import UnsatisfiableError
from splitbus_schemas.messages import Flip

REACH: Final = 100.0
"""A figure would have to change by more than this factor: that is no answer."""

_CLOSE: Final = 1e-6
"""Share of the score that a tie may be off."""

_HALVINGS: Final = 50

What: TypeAlias = Literal["up_mbit", "down_mbit", "rtt_ms", "wait_ms", "whole_ms"]


@dataclass(frozen=True)
class _Knob:
    """A figure of the problem that may be turned."""

    what: What
    where: str
    now: float
    low: float
    high: float
    turned: Callable[[float], Problem]

    def of(self, position: float) -> float:
        """The figure at a position; scores are linear in the position: in 1/rate, in everything else itself."""
        return 1 / position if self.what in ("up_mbit", "down_mbit") else position

    def ends(self) -> tuple[float, float]:
        """The positions of both ends of its reach."""
        return self.of(self.low), self.of(self.high)


def flips(problem: Problem, chosen: Split, rival: Split) -> list[Flip]:
    """Where the two ways tie, one figure turned at a time, the nearest first; those out of reach are left out."""
    found = []
    for knob in _knobs(problem, chosen, rival):
        at = _tie(knob, lambda turned: _lead(turned, chosen, rival))
        if at is not None:
            found.append(
                Flip(what=knob.what, where=knob.where, now=_short(knob.now), at=_short(at), text=_text(knob, at))
            )
    return sorted(found, key=lambda flip: (_distance(flip), flip.where, flip.what))


def _lead(problem: Problem, chosen: Split, rival: Split) -> float:
    """By how much the chosen way is better, as a share of both."""
    ours, theirs = (price(problem, split).score(problem.objective) for split in (chosen, rival))
    return (theirs - ours) / max(theirs + ours, 1e-9)


def _tie(knob: _Knob, lead: Callable[[Problem], float]) -> float | None:
    """The figure at which the lead is gone, on the nearer side."""

    def at(position: float) -> float:
        return lead(knob.turned(knob.of(position)))

    here = knob.of(knob.now)
    try:
        start = at(here)
        ties = [_root(at, here, start, end) for end in knob.ends()]
    except UnsatisfiableError:
        return None
    return min((knob.of(tie) for tie in ties if tie is not None), key=lambda value: abs(value - knob.now), default=None)


def _root(at: Callable[[float], float], here: float, start: float, end: float) -> float | None:
    """Where a function that is linear, or nearly so, is zero between two positions."""
    finish = at(end)
    if start == finish or min(start, finish) > 0 or max(start, finish) < 0:  # their product may be too small to tell
        return None
    low, high = here, end
    for turn in range(_HALVINGS):
        # Latency is linear and the first guess hits; the slowest stage of a pipeline is not, and is halved.
        share = start / (start - finish) if turn == 0 else 0.5
        middle = low + (high - low) * share
        value = at(middle)
        if abs(value) < _CLOSE:
            return middle
        low, high = (middle, high) if value * start > 0 else (low, middle)
    return (low + high) / 2


def _knobs(problem: Problem, *splits: Split) -> Iterator[_Knob]:
    for ends in sorted({ends for split in splits for ends in _links_of(split)}):
        if link := problem.links.get(ends):
            yield from _link_knobs(problem, ends, link)
    for node in sorted({node for split in splits for node in split.nodes}):
        if facts := problem.facts(node):
            yield from _node_knobs(problem, facts)


def _links_of(split: Split) -> set[tuple[str, str]]:
    return {*pairwise(split.nodes), (split.nodes[0], split.nodes[-1])} if split.cuts else set()


def _link_knobs(problem: Problem, ends: tuple[str, str], link: LinkFacts) -> Iterator[_Knob]:
    def turned(changed: LinkFacts) -> Problem:
        return replace(problem, links={**problem.links, ends: changed})

    where = ">".join(ends)
    if link.up_mbit:
        yield _Knob("up_mbit", where, link.up_mbit, *_around(link.up_mbit), lambda v: turned(replace(link, up_mbit=v)))
    if link.down_mbit:
        low, high = _around(link.down_mbit)
        yield _Knob("down_mbit", where, link.down_mbit, low, high, lambda v: turned(replace(link, down_mbit=v)))
    if link.rtt_ms is not None:
        low, high = link.rtt_ms / REACH, REACH * max(link.rtt_ms, 1.0)
        yield _Knob("rtt_ms", where, link.rtt_ms, low, high, lambda v: turned(replace(link, rtt_ms=v)))


def _node_knobs(problem: Problem, facts: NodeFacts) -> Iterator[_Knob]:
    elapsed = facts.elapsed_ms
    if elapsed is None or not elapsed[-1]:
        return
    whole = float(elapsed[-1])

    def turned(changed: NodeFacts) -> Problem:
        if changed.node == problem.device.node:
            return replace(problem, device=changed)
        workers = tuple(changed if worker.node == changed.node else worker for worker in problem.workers)
        return replace(problem, workers=workers)

    def slower(value: float) -> Problem:
        return turned(replace(facts, elapsed_ms=elapsed * (value / whole)))

    yield _Knob("whole_ms", facts.node, whole, *_around(whole), slower)
    if facts.node != problem.device.node:
        low, high = facts.wait_ms / REACH, REACH * max(facts.wait_ms, whole)
        yield _Knob("wait_ms", facts.node, facts.wait_ms, low, high, lambda v: turned(replace(facts, wait_ms=v)))


def _around(value: float) -> tuple[float, float]:
    return value / REACH, value * REACH


_NAMES: Final[dict[What, tuple[str, str]]] = {
    "up_mbit": ("uplink {}", "Mbit/s"),
    "down_mbit": ("downlink {}", "Mbit/s"),
    "rtt_ms": ("round trip {}", "ms"),
    "wait_ms": ("wait at {}", "ms"),
    "whole_ms": ("whole model on {}", "ms"),
}


def _text(knob: _Knob, at: float) -> str:
    name, unit = _NAMES[knob.what]
    side = "below" if at < knob.now else "above"
    return f"{name.format(knob.where)} {side} {_short(at):g} {unit} ({_short(knob.now):g} now)"


def _short(value: float) -> float:
    """Three digits: no more is known."""
    return float(f"{value:.3g}")


def _distance(flip: Flip) -> float:
    return abs(math.log(max(flip.at, 1e-3) / max(flip.now, 1e-3)))
