"""Ways to choose a split that are not ours: named baselines for replays and benchmarks. Pure.

Each chooses by the link of now, at once and without hysteresis, which is more than the systems they stand for could do.
Of our limits they keep to codecs and agreement; they know of no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from splitbus_gateway.planner import plan
from splitbus_gateway.pricing import MS_PER_BYTE_AT_1_MBIT, elapsed, measured_link, price
from splitbus_gateway.problem import Cut, Floats, NodeFacts, Problem, Split
from splitbus_schemas.errors import UnsatisfiableError

Choose: TypeAlias = Callable[[Problem], Split]

PLAIN: Final = "raw"
"""The codec that carries tensors as they are."""

_PICTURES: Final = ("jpeg", "webp", "png")


@dataclass(frozen=True)
class Policy:
    """A named way to choose; `about` is one line for people."""

    name: str
    about: str
    choose: Choose


def all_local(problem: Problem) -> Split:
    """Everything on the device."""
    return Split((problem.device.node,))


def image_upload(problem: Problem) -> Split:
    """The input to a worker: as the camera's own JPEG or WebP when the model takes pictures, else packed, losslessly or
    at the 8 bits that a picture has.
    """
    pictures = frozenset(c for c in problem.codings.codecs if c.startswith(_PICTURES))
    for codecs in (pictures, frozenset({PLAIN, "zstd", "q8"})):
        ways = [way for cut in _input_cuts(problem, _allowed(problem, codecs)) for way in _ways(problem, cut)]
        if ways:
            return min(ways)[1]
    return all_local(problem)


def _allowed(problem: Problem, codecs: frozenset[str]) -> frozenset[str]:
    """Those of the codecs that the limits allow."""
    limits = problem.limits.codecs
    return codecs if limits is None else codecs & limits


def _input_cuts(problem: Problem, codecs: frozenset[str]) -> Iterator[Cut]:
    codings, limits = problem.codings, problem.limits
    for column, codec in enumerate(codings.codecs):
        if codings.cuts[0] != 0 or len(codings.cuts) < 2 or codec not in codecs:
            continue
        agrees = codings.lossless[0, column] or codings.agreement[0, column] >= limits.min_agreement
        if np.isfinite(codings.coded_bytes[0, column]) and agrees:
            yield Cut(0, codec)


def _ways(problem: Problem, cut: Cut) -> Iterator[tuple[float, Split]]:
    """Every worker behind one cut, with the predicted latency."""
    for worker in problem.workers:
        split = Split((problem.device.node, worker.node), (cut,))
        try:
            yield price(problem, split).ms, split
        except UnsatisfiableError:
            continue


def neurosurgeon(problem: Problem, predicted: Mapping[str, Floats] | None = None) -> Split:
    """Kang et al., "Neurosurgeon", ASPLOS 2017, Algorithm 1 for latency.

    One cut, tensors as they are; device time up to the cut, bytes over the rate, server time behind it. Round trips,
    answers and coding are not counted. `predicted` gives times from the input to each cut by node, as a regression
    foretells them; without it the measured ones stand in, which flatters it.
    """
    return _float_cut(problem, range(len(problem.codings.cuts) - 1), predicted or {})


def dynamic_split(problem: Problem) -> Split:
    """Bakhtiarnia et al., "Dynamic split computing for efficient deep edge intelligence", 2022 (arXiv 2205.11269).

    The fastest of the natural bottlenecks at the current rate, tensors as they are; both ends are allowed as well.
    """
    return _float_cut(problem, [0, *natural_bottlenecks(problem)], {})


def natural_bottlenecks(problem: Problem) -> tuple[int, ...]:
    """Rows of cuts that carry less than the input and than every cut before them."""
    sizes = _plain_bytes(problem)
    return tuple(row for row in range(1, len(sizes)) if sizes[row] < np.nanmin(sizes[:row]))


def dyno_like(problem: Problem) -> Split:
    """In the manner of Almeida et al., "DynO", ACM TECS 2022: one cut, 8-bit tensors packed losslessly, by the rate."""
    limits = replace(problem.limits, codecs=_allowed(problem, frozenset({"q8"})))
    one_worker = replace(problem, limits=limits, pin=None)
    ways = [_planned(replace(one_worker, workers=(worker,))) for worker in problem.workers]
    return min(((price(problem, way).ms, way) for way in ways if way), default=(0.0, all_local(problem)))[1]


def _planned(problem: Problem) -> Split | None:
    try:
        return plan(problem).best.split
    except UnsatisfiableError:
        return None


def _plain_bytes(problem: Problem) -> Floats:
    """What each cut but the answer's carries without a codec."""
    return problem.codings.coded_bytes[:, problem.codings.codecs.index(PLAIN)]


def _float_cut(problem: Problem, rows: Sequence[int], predicted: Mapping[str, Floats]) -> Split:
    """The fastest single cut among `rows` by compute and upload alone; all on the device when that is faster."""

    def times(facts: NodeFacts) -> Floats:
        return predicted.get(facts.node, elapsed(facts))

    device, sizes = problem.device, _plain_bytes(problem)
    own = times(device)
    ways = [(float(own[-1]), all_local(problem))]
    for worker in problem.workers if _allowed(problem, frozenset({PLAIN})) else ():
        try:
            link = measured_link(problem, device.node, worker.node)
            theirs = times(worker)
        except UnsatisfiableError:
            continue
        for row in (row for row in rows if np.isfinite(sizes[row])):
            upload = sizes[row] * MS_PER_BYTE_AT_1_MBIT / (link.up_mbit or 1.0)
            ms = float(own[row] + upload + theirs[-1] - theirs[row])
            ways.append((ms, Split((device.node, worker.node), (Cut(problem.codings.cuts[row], PLAIN),))))
    return min(ways, key=lambda way: (way[0], way[1]))[1]


POLICIES: Final = (
    Policy("all-local", "everything on the device", all_local),
    Policy("image-upload", "the input to a worker, as a picture where the model takes one", image_upload),
    Policy("neurosurgeon", "Kang et al. 2017: one cut, float tensors, no round trip counted", neurosurgeon),
    Policy("dynamic-split", "Bakhtiarnia et al. 2022: natural bottlenecks, float tensors", dynamic_split),
    Policy("dyno-like", "after Almeida et al. 2022: one cut, 8-bit tensors", dyno_like),
)
