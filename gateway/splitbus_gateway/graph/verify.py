"""Runs head and tail against the whole model at every cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from splitbus_gateway.graph.codec_nodes import PLAIN_CODECS
from splitbus_gateway.graph.cuts import cut_at, legal_cuts
from splitbus_gateway.graph.feeds import random_feed
from splitbus_gateway.graph.model import ModelGraph
from splitbus_gateway.graph.slices import SliceGraph, extract
from splitbus_runtime.engine import Array, Session, open_session

Feed = Mapping[str, Array]
TOLERANCE = 1e-4
TOLERANCE_HALF = 1e-2  # float16 kernels work in float32 inside and round at their edges; a cut adds one such edge
TOLERANCE_QUANTISED = 5e-2  # a cut inside what would be one 8-bit kernel has it computed in float32: some codes move


@dataclass(frozen=True)
class CutCheck:
    """How far head and tail are from the whole: absolutely, and relative to the largest value of the same output."""

    index: int
    max_abs: float
    max_rel: float
    ok: bool


def verify(
    graph: ModelGraph,
    *,
    cuts: Iterable[int] | None = None,
    feeds: Sequence[Feed] = (),
    codec: str = "raw",
    tolerance: float | None = None,
    threads: int = 0,
    progress: Callable[[CutCheck], None] = lambda _: None,
) -> list[CutCheck]:
    """Check each legal cut (or those given) on random inputs and on `feeds`.

    `ok` means that the relative difference is within `tolerance`, or, without one, within `cut_tolerance`.
    """
    trials = [random_feed(graph.inputs), *feeds]
    whole = open_session(graph.path, threads=threads)
    expected = [dict(zip(graph.outputs, whole.run(feed, graph.outputs), strict=True)) for feed in trials]
    checks: list[CutCheck] = []
    for index in [cut.index for cut in legal_cuts(graph)] if cuts is None else cuts:
        parts = _parts(graph, index, codec, threads)
        pairs = [(_chain(parts, feed), answers) for feed, answers in zip(trials, expected, strict=True)]
        far = [distance(found[name], answers[name]) for found, answers in pairs for name in graph.outputs]
        max_abs, max_rel = (max(values) for values in zip(*far, strict=True))
        limit = cut_tolerance(graph, index) if tolerance is None else tolerance
        checks.append(CutCheck(index, max_abs, max_rel, max_rel <= limit))
        progress(checks[-1])
    return checks


def cut_tolerance(graph: ModelGraph, index: int) -> float:
    """What `verify` allows at a cut unless told: a quantised model is exact where only 8-bit tensors cross."""
    if any(step.op_type == "QuantizeLinear" for step in graph.topology.steps):
        crossing = cut_at(graph, index).tensors
        if any(tensor.is_float for tensor in crossing) and 0 < index < graph.steps:
            return TOLERANCE_QUANTISED
    dtypes = {spec.dtype for spec in graph.types.specs.values()}
    return TOLERANCE_HALF if "float16" in dtypes else TOLERANCE


def open_slice(part: SliceGraph, *, threads: int = 0) -> Session:
    """A session of the slice with its weights."""
    return open_session(
        part.model, weights={w.name: w.array() for w in part.weights}, threads=threads, what="the slice"
    )


def _parts(graph: ModelGraph, index: int, codec: str, threads: int) -> list[tuple[SliceGraph, Session]]:
    """Head and tail, without those that would do nothing."""
    slices = []
    if index or codec not in PLAIN_CODECS:
        slices.append(extract(graph, 0, index, codec_out=codec))
    if index < graph.steps:
        slices.append(extract(graph, index, graph.steps, codec_in=codec))
    return [(part, open_slice(part, threads=threads)) for part in slices]


def _chain(parts: list[tuple[SliceGraph, Session]], feed: Feed) -> dict[str, Array]:
    """All that the slices give, each fed by those before it."""
    values = dict(feed)
    for part, session in parts:
        results = session.run({spec.name: values[spec.name] for spec in part.inputs})
        values.update(zip((spec.name for spec in part.outputs), results, strict=True))
    return values


def distance(found: Array, expected: Array) -> tuple[float, float]:
    """Largest difference, and the same relative to the largest expected value; infinite when shapes differ."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return np.inf, np.inf
    if not expected.size:
        return 0.0, 0.0
    wide, reference = found.astype(np.float64), expected.astype(np.float64)
    same = (wide == reference) | (np.isnan(wide) & np.isnan(reference))
    with np.errstate(invalid="ignore"):
        difference = float(np.nan_to_num(np.where(same, 0.0, np.abs(wide - reference)), nan=np.inf).max())
    finite = np.abs(reference[np.isfinite(reference)])
    scale = float(finite.max()) if finite.size else 0.0
    return difference, difference / scale if scale else difference
