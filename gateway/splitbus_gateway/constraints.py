"""Which ways the limits allow: bounds on the terms of ways, and the nodes that must run.

For all ways at once (`narrow`), and in words for one that is priced (`unmet`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from splitbus_gateway.pricing import Priced
from splitbus_gateway.privacy import NO_FIGURES, blocks, kept, may_show, off_device, off_site, rebuilt
from splitbus_gateway.problem import Floats, Limits, NodeFacts, Problem
from splitbus_gateway.ways import Route, Term

HEADROOM: Final = 0.9
"""So much of the time between frames may the busiest stage of a way take that is to be chosen; what runs may take all
of it, so that a way at the border is not left and taken again."""

STAGES: Final = ("first_stages", "middle_stage", "last_stages")
"""The terms whose largest is a way's interval."""

_EPSILON = 1e-9
_KB_PER_MBIT = 1e3 / 8
_SECONDS_A_DAY = 86400


@dataclass(frozen=True, slots=True)
class Bound:
    """`term` of a way may be `most` at most, because of the field `limit` of Limits.

    `asked` says so; `best` says what could be had instead, as `offset + scale * term`.
    """

    limit: str
    term: str
    most: float
    asked: str
    best: str
    scale: float = 1.0
    offset: float = 0.0

    def allows(self, value: float) -> bool:
        """Whether it is kept, but for rounding."""
        return value <= self.slack

    @property
    def slack(self) -> float:
        """`most`, and what sums may be off by rounding."""
        return self.most + _EPSILON * max(1.0, abs(self.most))

    def figure(self, value: float) -> float:
        """A value of the term in the unit of the limit."""
        return self.offset + self.scale * value


def bounds_of(problem: Problem) -> list[Bound]:
    """All limits that bound a term; none for those that are not set, or cannot be judged."""
    return [*_figures(problem), *_floors(problem), *_pictures(problem), *_rates(problem), *_device(problem)]


def keeping_up(problem: Problem, share: float = HEADROOM) -> list[Bound]:
    """What ways must keep to so as not to fall behind the frames; apart from the limits, for it is no order."""
    if problem.every_ms is None:
        return []
    asked, most = f"keeping up with {1e3 / problem.every_ms:.3g} frames a second", share * problem.every_ms
    return [Bound("every_ms", term, most, asked, "the busiest stage takes {:.1f} ms") for term in STAGES]


def _figures(problem: Problem) -> Iterator[Bound]:
    limits = problem.limits
    if limits.deadline_ms is not None:
        asked = f"deadline {limits.deadline_ms:g} ms"
        yield Bound("deadline_ms", "longest", limits.deadline_ms, asked, "the fastest way takes {:.1f} ms")
    # Budgets are judged on losses: what a lossless codec promises needs no measurement.
    asked = f"agreement {limits.min_agreement:g}"
    yield Bound("min_agreement", "loss", 1 - limits.min_agreement, asked, "the best is {:.4g}", -1.0, 1.0)
    if limits.device_memory_mb is not None and problem.memory_mb is not None:
        asked = f"device memory {limits.device_memory_mb:g} MB"
        yield Bound("device_memory_mb", "device_mb", limits.device_memory_mb, asked, "the smallest takes {:.1f} MB")


def _floors(problem: Problem) -> Iterator[Bound]:
    limits, count = problem.limits, blocks(problem)
    floors = (
        ("keep_on_device", "off_device", limits.keep_on_device, "device"),
        ("keep_on_site", "off_site", limits.keep_on_site, "site"),
    )
    for limit, term, keep, place in floors:
        if keep:
            asked = f"keeping {kept(keep)} on the {place}"
            best = "the most that can be is {:.0f} blocks"
            yield Bound(limit, term, may_show(problem, keep), asked, best, -1.0, count)


def _pictures(problem: Problem) -> Iterator[Bound]:
    most = problem.limits.max_rebuilt
    if most is not None:
        best = "the least is {:.3f}" if problem.rebuilt is not None else NO_FIGURES
        yield Bound("max_rebuilt", "rebuilt", most, f"pictures rebuilt at most {most:g} alike (SSIM)", best)


def _rates(problem: Problem) -> Iterator[Bound]:
    """Bytes of a frame times frames: the average over the device's link, both ways."""
    limits, frames = problem.limits, problem.frames_per_s
    if not frames:
        return
    at = f"at {frames:g} frames a second"
    rates = (
        ("max_mbit", limits.max_mbit, frames / _KB_PER_MBIT, "Mbit/s"),
        ("max_mb_per_day", limits.max_mb_per_day, frames * _SECONDS_A_DAY / 1e3, "MB a day"),
    )
    for limit, most, scale, unit in rates:
        if most is not None:
            asked, best = f"at most {most:g} {unit} {at}", f"the least is {{:.4g}} {unit}"
            yield Bound(limit, "device_kb", most / scale, asked, best, scale)


def _device(problem: Problem) -> Iterator[Bound]:
    limits, device = problem.limits, problem.device
    if _names(limits.must_run, device):
        # A model that cannot be cut at its input begins on the device anyway.
        most = blocks(problem) - (problem.codings.cuts[0] == 0)
        best = "the workers have to run {:.0f} blocks"
        yield Bound("must_run", "worker_blocks", most, order_to_run(device.node), best)
    if _names(limits.must_not_run, device):
        best = "it has to run {:.0f} blocks"
        yield Bound("must_not_run", "device_blocks", 0.0, order_not_to_run(device.node), best)


def _names(wanted: Iterable[str], facts: NodeFacts) -> bool:
    return not {facts.node, facts.tier}.isdisjoint(wanted)


def workers_wanted(problem: Problem) -> frozenset[str]:
    """The workers and their tiers that must run."""
    return problem.limits.must_run - {problem.device.node, problem.device.tier}


def lacking(problem: Problem, nodes: tuple[str, ...]) -> list[str]:
    """Which of the workers and tiers that must run a route leaves out."""
    there = {name for node in nodes[1:] if (facts := problem.facts(node)) for name in (facts.node, facts.tier)}
    return sorted(workers_wanted(problem) - there)


def narrow(route: Route, bounds: Iterable[Bound]) -> tuple[Route, list[Bound]] | None:
    """The route with the rows that can keep the bounds, and the bounds that pairs of them may still break.

    None when no way is left.
    """
    bounds = list(bounds)
    keep = [np.ones(rows.at.size, dtype=np.bool_) for rows in route.rows]
    if not all(flags.size for flags in keep):
        return None
    for bound in bounds:
        term = route.terms[bound.term]
        if not bound.allows(_least(term)):
            return None
        keep = [flags & (least <= bound.slack) for flags, least in zip(keep, _least_with_each(term), strict=True)]
    if not all(flags.any() for flags in keep):
        return None
    narrowed = route if all(flags.all() for flags in keep) else route.narrowed(keep)
    return narrowed, [bound for bound in bounds if _most(narrowed.terms[bound.term]) > bound.slack]


def _least(term: Term) -> float:
    return float(term.const + sum(leg.min() for leg in term.legs))


def _most(term: Term) -> float:
    return float(term.const + sum(leg.max() for leg in term.legs))


def _least_with_each(term: Term) -> list[Floats]:
    least = _least(term)
    return [least - leg.min() + leg for leg in term.legs]


def waived(problem: Problem) -> Limits:
    """The limits that the device alone always keeps: those on where a frame must run and what that takes are gone."""
    own = {problem.device.node, problem.device.tier}
    return replace(
        problem.limits,
        device_memory_mb=None,
        max_mbit=None,
        max_mb_per_day=None,
        must_run=frozenset(),
        must_not_run=problem.limits.must_not_run - own,
    )


def unmet(problem: Problem, priced: Priced) -> dict[str, str]:
    """The limits that a way does not keep: their fields, and in words; a pin may keep less than asked."""
    split, codings = priced.split, problem.codings
    cells = [(codings.cuts.index(cut.index), codings.codecs.index(cut.codec)) for cut in split.cuts]
    own = cells[0][0] if cells else blocks(problem)
    values = {
        "longest": priced.longest_ms,
        "loss": priced.loss,
        "device_mb": priced.device_mb or 0.0,
        "device_kb": (priced.up_bytes + priced.down_bytes) / 1e3,
        "off_device": off_device(problem, split),
        "off_site": off_site(problem, split),
        "rebuilt": rebuilt(problem, split),
        "device_blocks": own + (codings.cuts[0] != 0),
        "worker_blocks": blocks(problem) - own,
        **dict.fromkeys(STAGES, priced.interval_ms),
    }
    bounds = [*bounds_of(problem), *keeping_up(problem, 1.0)]
    broken = {bound.limit: bound.asked for bound in bounds if not bound.allows(values[bound.term])}
    absent = lacking(problem, split.nodes)
    if absent:
        broken["must_run"] = order_to_run(absent[0])
    if problem.limits.lossless_only and not all(codings.lossless[cell] for cell in cells):
        broken["lossless_only"] = LOSSLESS
    if problem.limits.codecs is not None and not problem.limits.codecs.issuperset(cut.codec for cut in split.cuts):
        broken["codecs"] = only_codecs(problem.limits.codecs)
    return broken


# What was asked for, in words

LOSSLESS: Final = "lossless codecs only"


def order_to_run(name: str) -> str:
    """A worker or a tier must run."""
    return f"order to run {name}"


def order_not_to_run(name: str) -> str:
    """A worker or a tier must not."""
    return f"order not to run {name}"


def only_codecs(codecs: Iterable[str]) -> str:
    """No other codecs."""
    return f"codecs {', '.join(sorted(codecs)) or 'none'} only"
