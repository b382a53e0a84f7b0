"""Whether the demo kept its word: every frame answered once, rightly, and in time. Pure but for the model it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitbus_demo.inputs import InputSource
from splitbus_demo.script import Act, phase_at
from splitbus_runtime.engine import open_session
from splitbus_schemas.codecs import CODECS

LOSSLESS_TOLERANCE: Final = 1e-4
"""Of the largest absolute output: cutting between a convolution and its activation reorders a sum or two."""

MIN_AGREEMENT: Final = 0.97
MIN_MOVES: Final = 2

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Check:
    """One promise, whether it was kept, and the figure behind it."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Comparison:
    """A frame's answer against the un-split model's."""

    index: int
    lossless: bool
    difference: float
    """Largest absolute difference, relative to the largest absolute output."""
    agrees: bool
    """The largest output is the same one."""


def compare(
    model: Path, records: Sequence[dict[str, Any]], outputs: Path, progress: Callable[[int], None]
) -> list[Comparison]:
    """Run the un-split model on every frame that was answered, and compare."""
    session = open_session(model)
    sources = {info.name: InputSource(info.shape, info.dtype) for info in session.inputs}
    comparisons = []
    for done, (record, answered) in enumerate(_with_outputs(records, outputs), 1):
        feeds = {name: source.array(record["index"]) for name, source in sources.items()}
        expected = [np.asarray(output, np.float32).ravel() for output in session.run(feeds)]
        comparisons.append(_compare(record, expected, answered))
        progress(done)
    return comparisons


def _with_outputs(records: Sequence[dict[str, Any]], outputs: Path) -> Iterable[tuple[dict[str, Any], list[Array]]]:
    values = np.memmap(outputs, np.float32, "r") if outputs.stat().st_size else np.empty(0, np.float32)
    position = 0
    for record in records:
        answered = []
        for count in record["values"]:
            answered.append(np.asarray(values[position : position + count]))
            position += count
        if answered:
            yield record, answered


def _compare(record: dict[str, Any], expected: Sequence[Array], answered: Sequence[Array]) -> Comparison:
    lossless = all(CODECS[codec].lossless for codec in record["codecs"])
    if [a.shape for a in expected] != [a.shape for a in answered]:
        return Comparison(record["index"], lossless, float("inf"), agrees=False)
    scale = max(float(np.abs(a).max(initial=0.0)) for a in expected) or 1.0
    worst = max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(expected, answered, strict=True))
    agrees = all(a.size == 0 or a.argmax() == b.argmax() for a, b in zip(expected, answered, strict=True))
    return Comparison(record["index"], lossless, worst / scale, agrees)


def judge(
    records: Sequence[dict[str, Any]], comparisons: Sequence[Comparison], acts: list[Act], frames: int, moves: int
) -> list[Check]:
    """Every promise of the demo. `frames` were asked for; the split moved `moves` times."""
    return [
        _answered_once(records, frames),
        _all_compared(records, comparisons),
        _lossless_equal(comparisons),
        _lossy_agrees(comparisons),
        Check("the split moved", moves >= MIN_MOVES, f"{moves} times, at least {MIN_MOVES} wanted"),
        _cut_was_local(records, acts),
    ]


def _answered_once(records: Sequence[dict[str, Any]], frames: int) -> Check:
    counts = Counter(record["index"] for record in records if record["outcome"] == "answered")
    missing = [index for index in range(frames) if counts[index] == 0]
    twice = [index for index, count in counts.items() if count > 1]
    detail = f"{len(counts)} of {frames} frames, {len(missing)} unanswered, {len(twice)} answered twice"
    return Check("every frame was answered once", frames > 0 and not missing and not twice, detail)


def _all_compared(records: Sequence[dict[str, Any]], comparisons: Sequence[Comparison]) -> Check:
    answered = sum(record["outcome"] == "answered" for record in records)
    return Check("every answer was checked", len(comparisons) == answered, f"{len(comparisons)} of {answered}")


def _lossless_equal(comparisons: Sequence[Comparison]) -> Check:
    worst = max((c.difference for c in comparisons if c.lossless), default=0.0)
    count = sum(c.lossless for c in comparisons)
    detail = f"largest difference {worst:.1e} of {LOSSLESS_TOLERANCE:.0e} over {count} frames"
    return Check("lossless answers equal the un-split model's", worst <= LOSSLESS_TOLERANCE, detail)


def _lossy_agrees(comparisons: Sequence[Comparison]) -> Check:
    lossy = [c.agrees for c in comparisons if not c.lossless]
    share = sum(lossy) / len(lossy) if lossy else 1.0
    detail = f"top-1 agreement {share:.3f} over {len(lossy)} frames, at least {MIN_AGREEMENT} wanted"
    return Check("lossy answers agree with the un-split model's", share >= MIN_AGREEMENT, detail)


def _cut_was_local(records: Sequence[dict[str, Any]], acts: list[Act]) -> Check:
    def in_cut(record: dict[str, Any]) -> bool:
        phase = phase_at(acts, record["asked"])
        return phase is not None and phase.link is None

    during = [record for record in records if in_cut(record)]
    good = [record for record in during if len(record["route"]) == 1 and not record["late"]]
    detail = f"{len(good)} of {len(during)} frames"
    return Check("during the cut, the camera answered in time", bool(during) and len(good) == len(during), detail)
