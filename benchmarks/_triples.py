"""What each way to send costs at one point lost: the device's computing, bytes, what answers keep; and where one wins.

A way's triple is that of its smallest setting that loses one point at most. The device computes the head and codes:
JALAD's and DynO's coding counts as that of `q4`, which quantises and packs as they do, by zstd. Of a picture it encodes
that alone, and the worker then runs the whole model. Latency is the device's part times --slowdown, the bytes over the
link, and what the worker does; answers, the same for all, are left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from _codings import open_picture, save_picture
from _report import Figure
from _subjects import Point, Subject

from splitbus_gateway.records import CodedSize
from splitbus_runtime.engine import Array

LINKS_MBIT = (5.0, 20.0, 50.0)
MS_PER_BYTE = 8e-3
PICTURES = ("jpeg", "webp", "png")
PACKED = "q4"
WORTH = 20.0
"""The factor below float32 that is asked of a model."""


@dataclass(frozen=True)
class AtCut:
    """A cut with what was measured there: bytes of its values as float32, the head's time, each way's points."""

    index: int
    float_bytes: int
    head_ms: float
    ways: Mapping[str, Sequence[Point]]
    coding: Mapping[str, CodedSize]


@dataclass(frozen=True)
class Measured:
    """A model with all that was measured of it."""

    subject: Subject
    whole_ms: float
    answer_bytes: float
    cuts: Sequence[AtCut]
    pictures: Mapping[str, Sequence[Point]]


@dataclass(frozen=True)
class Triple:
    """A way within a point; `worker_ms` is what is left to do after the link."""

    way: str
    setting: str
    device_ms: float
    size: float
    kept: str
    worker_ms: float

    def latency(self, slowdown: float, mbit: float) -> float:
        """Milliseconds from the picture to the answer, without what links and answers cost whatever is sent."""
        return self.device_ms * slowdown + self.size * MS_PER_BYTE / mbit + self.worker_ms


def triples(found: Measured, slowdown: float) -> Iterator[Figure]:
    """Every way's triple, and for each link the cuts where ours wins over all others."""
    name = found.subject.name
    pictures = [one for kind in PICTURES if (one := _picture(found, kind))]
    for one in pictures:
        yield _shown(f"{name}.{one.way}", one)
    ours: dict[int, Triple] = {}
    rivals: dict[int, list[Triple]] = {}
    for cut in found.cuts:
        for way in cut.ways:
            one = _tensor(found, cut, way)
            if one is None:
                yield Figure(f"{name}.{cut.index}.{way}.triple", float("nan"), "B", "no setting is within a point")
                continue
            yield _shown(f"{name}.{cut.index}.{way}", one)
            if way == "transform":
                ours[cut.index] = one
            else:
                rivals.setdefault(cut.index, []).append(one)
    for mbit in LINKS_MBIT:
        over = {
            index: [
                other.way for other in (*rivals.get(index, ()), *pictures) if not _beats(one, other, slowdown, mbit)
            ]
            for index, one in ours.items()
        }
        won = [f"{index}" for index, left in over.items() if not left]
        lost = "; ".join(f"{index} not over {', '.join(left)}" for index, left in over.items() if left)
        detail = f"cuts {', '.join(won)}" if won else "none wins"
        yield Figure(f"{name}.wins.{mbit:g}mbit", len(won), f"of {len(found.cuts)}", f"{detail}; {lost}".strip("; "))


def _beats(one: Triple, other: Triple, slowdown: float, mbit: float) -> bool:
    return one.size < other.size and one.latency(slowdown, mbit) < other.latency(slowdown, mbit)


def _shown(label: str, one: Triple) -> Figure:
    return Figure(f"{label}.triple", one.size, "B", f"{one.setting}: device {one.device_ms:.2f} ms, {one.kept}")


def _smallest(found: Measured, points: Sequence[Point]) -> Point | None:
    return min(found.subject.within_a_point(points), key=lambda point: point.size, default=None)


def _tensor(found: Measured, cut: AtCut, way: str) -> Triple | None:
    point = _smallest(found, cut.ways[way])
    if point is None:
        return None
    coding = cut.coding.get(point.setting if way == "transform" else PACKED)
    encode, decode = (coding.encode_ms, coding.decode_ms) if coding else (0.0, 0.0)
    rest = max(found.whole_ms - cut.head_ms, 0.0)
    return Triple(way, point.setting, cut.head_ms + encode, point.size, _kept(point), decode + rest)


def _picture(found: Measured, kind: str) -> Triple | None:
    point = _smallest(found, found.pictures[kind])
    if point is None:
        return None
    encode, decode = picture_ms(found.subject.pictures[0], kind, int(point.setting[1:]))
    return Triple(kind, point.setting, encode, point.size, _kept(point), decode + found.whole_ms)


def _kept(point: Point) -> str:
    accuracy = "" if np.isnan(point.accuracy) else f", accuracy {point.accuracy:.3f}"
    return f"agreement {point.agreement:.3f}{accuracy}"


def picture_ms(pixels: Array, kind: str, quality: int, rounds: int = 7) -> tuple[float, float]:
    """Milliseconds to encode and to decode a picture."""
    there, back = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        data = save_picture(pixels, kind, quality)
        between = time.perf_counter()
        open_picture(data)
        back.append(time.perf_counter() - between)
        there.append(between - begun)
    return float(np.median(there)) * 1e3, float(np.median(back)) * 1e3


def best_factor(found: Measured) -> Figure:
    """The largest factor below float32 over the cuts, at one point lost."""
    smallest = {cut.index: one for cut in found.cuts if (one := _tensor(found, cut, "transform"))}
    name = f"codec.best_factor.{found.subject.name}"
    if not smallest:
        return Figure(name, float("nan"), "x", "no setting is within a point at any cut")
    factors = [(cut.float_bytes / smallest[cut.index].size, cut) for cut in found.cuts if cut.index in smallest]
    factor, best = max(factors, key=lambda pair: pair[0])
    where = f"cut {best.index}, {best.head_ms / found.whole_ms:.0%} of the model's time"
    return Figure(name, factor, "x", f"{where}, {smallest[best.index].setting}, {smallest[best.index].kept}")
