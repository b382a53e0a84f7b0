"""Questions for the planner: one to reckon by hand, random ones, and a plain loop over all ways to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from splitbus_gateway.pricing import Priced, price
from splitbus_gateway.problem import (
    OBJECTIVES,
    Codings,
    Cut,
    Floats,
    Limits,
    LinkFacts,
    NodeFacts,
    Objective,
    Problem,
    SecondLook,
    Split,
)
from splitbus_schemas.errors import UnsatisfiableError
from splitbus_schemas.messages import Tier

CODECS = ("raw", "q8")


def codings(cuts: tuple[int, ...], coded_bytes: list[list[float]], codecs: tuple[str, ...] = CODECS) -> Codings:
    sizes = np.array(coded_bytes, dtype=np.float64)
    lossless = np.zeros(sizes.shape, dtype=np.bool_)
    lossless[:, 0] = True
    return Codings(
        cuts=cuts,
        codecs=codecs,
        coded_bytes=sizes,
        encode_ms=np.where(lossless, 0.0, 1.0),
        decode_ms=np.where(lossless, 0.0, 0.5),
        agreement=np.where(lossless, 1.0, 0.99),
        lossless=lossless,
    )


def node(name: str, tier: Tier, times: list[float] | None, **more: float) -> NodeFacts:
    elapsed = None if times is None else np.array(times, dtype=np.float64)
    return NodeFacts(name, tier, elapsed, wait_ms=more.get("wait_ms", 0.0), codecs=frozenset(CODECS))


def three_tiers(**more: Any) -> Problem:
    """Input 100 kB, then cuts of 400 kB and 10 kB; the device is 10 times slower than the edge, 20 than the cloud."""
    fields: dict[str, Any] = {
        "codings": codings((0, 3, 7, 9), [[100e3, 25e3], [400e3, 100e3], [10e3, 2.5e3]]),
        "reference_ms": 10.0,
        "answer_bytes": 4000.0,
        "device": node("cam1", "device", [0, 20, 60, 100]),
        "workers": (node("edge1", "edge", [0, 2, 6, 10]), node("cloud1", "cloud", [0, 1, 3, 5])),
        "links": {
            ("cam1", "edge1"): LinkFacts(rtt_ms=2.0, up_mbit=40.0, down_mbit=80.0),
            ("cam1", "cloud1"): LinkFacts(rtt_ms=20.0, up_mbit=10.0, down_mbit=40.0),
            ("edge1", "cloud1"): LinkFacts(rtt_ms=10.0, up_mbit=100.0, down_mbit=100.0),
        },
        "memory_mb": np.array([0.0, 5.0, 20.0, 50.0]),
    }
    return Problem(**(fields | more))


# --- a plain loop


def every_way(problem: Problem, *, hard_deadline: bool = False) -> Iterator[Priced]:
    """All ways that the limits allow, one by one."""
    free = replace(problem, limits=Limits(), objective=Objective())
    for split in every_split(problem):
        try:
            way = price(free, split)
        except UnsatisfiableError:
            continue
        if not broken(problem, way) - ({"every_ms"} if hard_deadline else {"every_ms", "deadline_ms"}):
            yield way


def every_split(problem: Problem) -> Iterator[Split]:
    device = problem.device.node
    yield Split((device,))
    ends = [Cut(cut, codec) for cut, codec in product(problem.codings.cuts[:-1], problem.codings.codecs)]
    yield from (Split((device, worker.node), (cut,)) for worker in problem.workers for cut in ends)
    for edge, cloud in product(problem.workers, problem.workers):
        if (edge.tier, cloud.tier) == ("edge", "cloud"):
            for one, two in product(ends, ends):
                if one.index < two.index:
                    yield Split((device, edge.node, cloud.node), (one, two))


def broken(problem: Problem, way: Priced) -> set[str]:
    """The limits that a way breaks, worked out plainly; and whether it falls behind the frames."""
    limits, split, cuts = problem.limits, way.split, problem.codings.cuts
    last = len(cuts) - 1
    cells = [(cuts.index(cut.index), problem.codings.codecs.index(cut.codec)) for cut in split.cuts]
    tiers = [facts.tier for name in split.nodes if (facts := problem.facts(name))]
    first = cells[0][0] if cells else last
    runs = {*split.nodes[1:], *tiers[1:]}
    if first or cuts[0]:
        runs |= {problem.device.node, "device"}
    kilobytes = (way.up_bytes + way.down_bytes) / 1e3
    frames = problem.frames_per_s or 0.0
    found = {
        "deadline_ms": limits.deadline_ms is not None and way.longest_ms > limits.deadline_ms + 1e-9,
        "min_agreement": sum(loss(problem, cut) for cut in split.cuts) > 1 - limits.min_agreement + 1e-9,
        "lossless_only": limits.lossless_only and not all(problem.codings.lossless[cell] for cell in cells),
        "codecs": limits.codecs is not None and not {cut.codec for cut in split.cuts} <= limits.codecs,
        "keep_on_device": any(given(problem, cut) & secret(problem, limits.keep_on_device) for cut in split.cuts[:1]),
        "keep_on_site": any(
            given(problem, cut) & secret(problem, limits.keep_on_site)
            for cut, tier in zip(split.cuts, tiers[1:], strict=True)
            if tier == "cloud"
        ),
        "device_memory_mb": (
            limits.device_memory_mb is not None
            and problem.memory_mb is not None
            and problem.memory_mb[first] > limits.device_memory_mb + 1e-9
        ),
        "max_mbit": limits.max_mbit is not None and kilobytes * 8e-3 * frames > limits.max_mbit + 1e-9,
        "max_mb_per_day": (
            limits.max_mb_per_day is not None and kilobytes / 1e3 * frames * 86400 > limits.max_mb_per_day + 1e-6
        ),
        "every_ms": problem.every_ms is not None and way.interval_ms > problem.every_ms + 1e-9,
        "max_rebuilt": limits.max_rebuilt is not None and shown(problem, split) > limits.max_rebuilt,
        "must_run": not limits.must_run <= runs,
        "must_not_run": bool(limits.must_not_run & runs),
    }
    return {name for name, is_broken in found.items() if is_broken}


def given(problem: Problem, cut: Cut) -> set[str]:
    """What crosses a cut: its own tensors, and what the first block behind it is given."""
    return {*problem.tensors.get(cut.index, (f"at {cut.index}",))}


def shown(problem: Problem, split: Split) -> float:
    """How alike to a picture is what is rebuilt from what leaves the device; all of it when nobody knows."""
    if not split.cuts:
        return 0.0
    found = None if problem.rebuilt is None else problem.rebuilt[problem.codings.cuts.index(split.cuts[0].index)]
    return 1.0 if found is None or np.isnan(found) else float(found)


def secret(problem: Problem, blocks: int) -> set[str]:
    """What the first blocks are given."""
    return {name for index in problem.codings.cuts[:-1][:blocks] for name in given(problem, Cut(index, ""))}


def loss(problem: Problem, cut: Cut) -> float:
    cell = problem.codings.cuts.index(cut.index), problem.codings.codecs.index(cut.codec)
    return 0.0 if problem.codings.lossless[cell] else 1.0 - float(problem.codings.agreement[cell])


def shape(problem: Problem, split: Split) -> tuple[object, ...]:
    tiers = tuple(facts.tier for name in split.nodes if (facts := problem.facts(name)))
    return tiers, split.cuts


# --- random questions

milliseconds = st.floats(0, 100).map(lambda value: round(value, 3))
objectives = st.sampled_from([*OBJECTIVES.values(), Objective(1.0, 0.5, 0.01, 0.1), Objective(0.0, 1.0, 0.1, 0.0)])


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to five blocks, two edges and two clouds; no limits but agreement."""
    count, names = draw(st.integers(1, 5)), ("raw", "q8", "q4")[: draw(st.integers(1, 3))]
    cells = (count, len(names))
    grid = st.lists(st.floats(0, 1e5), min_size=count * len(names), max_size=count * len(names))

    def array() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.array(draw(grid)).reshape(cells)

    def times(name: str, tier: Tier) -> NodeFacts:
        blocks = draw(st.lists(milliseconds, min_size=count, max_size=count))
        elapsed = None if draw(st.integers(0, 9)) == 9 and tier != "device" else np.cumsum([0.0, *blocks])
        limit = draw(st.sampled_from([10**6, 10**6, 10**4]))
        known = frozenset(draw(st.sets(st.sampled_from(names)))) if draw(st.integers(0, 4)) == 4 else frozenset(names)
        lanes = 1 if tier == "device" else draw(st.sampled_from([1, 1, 2]))
        return NodeFacts(name, tier, elapsed, draw(milliseconds), known, limit, lanes)

    def link() -> LinkFacts:
        rate = st.floats(0.1, 1000)
        return LinkFacts(draw(milliseconds), draw(rate), draw(st.none() | rate))

    workers = tuple(times(f"edge{i}", "edge") for i in range(draw(st.sampled_from((1, 2, 0)))))
    workers += tuple(times(f"cloud{i}", "cloud") for i in range(draw(st.sampled_from((1, 2, 0)))))
    pairs = [("cam", w.node) for w in workers] + [(a.node, b.node) for a in workers for b in workers if a is not b]
    lossless = np.zeros(cells, dtype=np.bool_)
    lossless[:, 0] = True
    sizes = array()
    sizes[draw(st.integers(0, count - 1)), draw(st.integers(0, len(names) - 1))] = np.nan
    agreement = np.array(
        draw(st.lists(st.sampled_from([0.9, 0.97, 0.98, 0.985, 0.99, 1.0]), min_size=sizes.size, max_size=sizes.size))
    ).reshape(cells)
    return Problem(
        codings=Codings(
            tuple(range(0, 2 * count + 2, 2)),
            names,
            sizes,
            array() / 1e4,
            array() / 1e4,
            agreement,
            lossless,
            second_looks(draw, cells, array) if draw(st.integers(0, 2)) == 2 else None,
        ),
        reference_ms=draw(st.floats(1, 50)),
        answer_bytes=draw(st.floats(0, 1e4)),
        device=times("cam", "device"),
        workers=workers,
        links={pair: link() for pair in pairs if draw(st.integers(0, 7)) != 7},
        limits=Limits(min_agreement=draw(st.sampled_from([0.9, 0.97, 0.98]))),
    )


def second_looks(draw: st.DrawFn, cells: tuple[int, int], figures: Callable[[], Floats]) -> SecondLook:
    """Some codings send a share of frames again; of the others there is nothing to tell."""
    shares = st.lists(st.sampled_from([0.0, 0.0, 0.2, 0.5]), min_size=cells[0] * cells[1], max_size=cells[0] * cells[1])
    share = np.array(draw(shares)).reshape(cells)

    def where_again(values: Floats) -> Floats:
        return np.where(share > 0, values, np.nan)

    below = np.full(cells, 0.3)
    return SecondLook(
        share, where_again(below), where_again(figures()), where_again(figures() / 1e4), where_again(figures() / 1e4)
    )


@st.composite
def limited_problems(draw: st.DrawFn, share: int = 1) -> Problem:
    """The same with any objective, `share` eighths of all kinds of limits, and tensors that skip blocks."""
    problem = draw(problems())
    count = len(problem.codings.cuts) - 1
    names = ["cam", "device", "edge", "cloud", "edge0", "cloud1"]

    def some(values: st.SearchStrategy[Any], nothing: object = None) -> Any:
        return draw(values) if draw(st.integers(0, 7)) >= 8 - share else nothing

    def orders() -> frozenset[str]:
        return frozenset(some(st.sets(st.sampled_from(names), min_size=1, max_size=2), ()))

    must_run = orders()
    limits = Limits(
        min_agreement=draw(st.sampled_from([0.9, 0.97, 0.98, 1.0])),
        lossless_only=some(st.just(value=True), nothing=False),
        codecs=some(st.sets(st.sampled_from(problem.codings.codecs)).map(frozenset)),
        deadline_ms=some(st.floats(0.1, 300)),
        keep_on_device=some(st.integers(1, count + 1), 0),
        keep_on_site=some(st.integers(1, count + 1), 0),
        device_memory_mb=some(st.floats(0, 12)),
        max_mbit=some(st.floats(0.01, 20)),
        max_mb_per_day=some(st.floats(1, 1e5)),
        must_run=must_run,
        must_not_run=orders() - must_run,
        max_rebuilt=some(st.sampled_from([0.1, 0.3, 0.5, 0.9])),
    )
    alike = sorted(draw(st.lists(st.sampled_from([np.nan, 0.2, 0.3, 0.6, 0.95]), min_size=count, max_size=count)))
    skips = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=2))
    tensors = {
        index: (f"at {index}", *(f"skip {a} {b}" for a, b in skips if a <= position <= b))
        for position, index in enumerate(problem.codings.cuts[:-1])
    }
    return replace(
        problem,
        limits=limits,
        objective=draw(objectives),
        frames_per_s=some(st.sampled_from([1.0, 10.0, 30.0]), 5.0),
        every_ms=some(st.sampled_from([5.0, 20.0, 100.0])),
        memory_mb=np.cumsum([0.0, *draw(st.lists(st.floats(0, 5), min_size=count, max_size=count))]),
        tensors=tensors,
        rebuilt=draw(st.sampled_from([None, np.array(alike[::-1])])),
    )
