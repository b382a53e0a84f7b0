"""What the planner makes of a model's table on three links: the cut and setting chosen, and what coding takes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from _report import Figure
from _triples import LINKS_MBIT, Measured, picture_ms

from splitbus_gateway.planner import plan
from splitbus_gateway.pricing import Priced, price
from splitbus_gateway.problem import Codings, Cut, Limits, LinkFacts, NodeFacts, Problem
from splitbus_schemas.codecs import CODECS

RTT_MS = 5.0
MIN_AGREEMENT = 0.98
CAMERA, EDGE = "camera", "edge"


@dataclass(frozen=True)
class Entry:
    """A codec at a cut."""

    size: float
    encode_ms: float
    decode_ms: float
    agreement: float
    lossless: bool


def plans(found: Measured, slowdown: float) -> Iterator[Figure]:
    """For each link the plan that is best, its share of coding, and what coding saved beside raw tensors."""
    name, table = found.subject.name, _table(found)
    for mbit in LINKS_MBIT:
        problem = _problem(found, table, slowdown, mbit)
        best = plan(problem).best
        coding = _coding_ms(best)
        label = f"{name}.plan.{mbit:g}mbit"
        yield Figure(label, best.ms, "ms", f"{best.split}, {best.bytes:.0f} B, device {best.device_ms:.1f} ms")
        yield Figure(f"{label}.coding_share", coding / best.ms, "", f"{coding:.2f} of {best.ms:.1f} ms")
        if best.split.cuts:
            saved = _raw(problem, best).ms - best.ms
            yield Figure(f"{label}.saved", saved, "ms", f"beside raw values at cut {best.split.cuts[0].index}")
        split = _best_split(problem)
        if split and split.split != best.split:
            detail = f"{split.split}, {split.ms:.1f} ms, coding {_coding_ms(split) / split.ms:.1%} of it"
            yield Figure(f"{label}.true_split", split.ms / best.ms, "x as long", detail)


def _coding_ms(way: Priced) -> float:
    return sum(step.ms for step in way.steps if step.what in ("encode", "decode"))


def _raw(problem: Problem, way: Priced) -> Priced:
    cuts = tuple(Cut(cut.index, "raw") for cut in way.split.cuts)
    return price(problem, replace(way.split, cuts=cuts))


def _best_split(problem: Problem) -> Priced | None:
    """The best way that cuts behind the input."""
    rows = problem.codings.cuts[1:-1]
    allowed = problem.codings.agreement >= MIN_AGREEMENT
    cells = np.argwhere(allowed[1:] & np.isfinite(problem.codings.coded_bytes[1:]))
    whole = plan(problem).best.split
    ways = [replace(whole, nodes=(CAMERA, EDGE), cuts=(Cut(rows[row], problem.codings.codecs[column]),))
            for row, column in cells]  # fmt: skip
    return min((price(problem, way) for way in ways), key=lambda one: one.ms, default=None)


def _table(found: Measured) -> dict[tuple[int, str], Entry]:
    """Every cut and codec: the transform's agreement as of all views, the simpler ones' as of the planner's table."""
    pixels = found.subject.pictures[0]
    table = {(0, "raw"): Entry(pixels.nbytes, 0.0, 0.0, 1.0, lossless=True)}
    for kind, points in found.pictures.items():
        for point in points:
            encode, decode = picture_ms(pixels, kind, int(point.setting[1:]), rounds=3)
            name = f"{kind}{point.setting[1:]}"
            table[0, name] = Entry(point.size, encode, decode, point.agreement, lossless=kind == "png")
    for cut in found.cuts:
        kept = {point.setting: point.agreement for point in cut.ways["transform"]}
        for codec, size in cut.coding.items():
            lossless = CODECS[codec].lossless
            agreement = kept.get(codec, size.agreement)
            table[cut.index, codec] = Entry(size.p50_bytes, size.encode_ms, size.decode_ms, agreement, lossless)
    return table


def _problem(found: Measured, table: Mapping[tuple[int, str], Entry], slowdown: float, mbit: float) -> Problem:
    cuts = [0, *(cut.index for cut in found.cuts)]
    codecs = tuple(dict.fromkeys(codec for _, codec in table))

    def column(field: str, missing: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.array([[getattr(table.get((cut, codec)), field, missing) for codec in codecs] for cut in cuts], float)

    codings = Codings(
        cuts=(*cuts, found.subject.graph.steps),
        codecs=codecs,
        coded_bytes=column("size", np.nan),
        encode_ms=column("encode_ms", np.nan),
        decode_ms=column("decode_ms", np.nan),
        agreement=column("agreement", np.nan),
        lossless=column("lossless", 0.0).astype(bool),
    )
    elapsed = np.maximum.accumulate([0.0, *(cut.head_ms for cut in found.cuts), found.whole_ms])
    elapsed = np.minimum(elapsed, found.whole_ms)
    known = frozenset(codecs)
    return Problem(
        codings=codings,
        reference_ms=found.whole_ms,
        answer_bytes=found.answer_bytes,
        device=NodeFacts(CAMERA, "device", elapsed * slowdown, codecs=known),
        workers=(NodeFacts(EDGE, "edge", elapsed, codecs=known),),
        links={(CAMERA, EDGE): LinkFacts(RTT_MS, mbit, mbit)},
        limits=Limits(min_agreement=MIN_AGREEMENT),
    )
