"""Heads and tails as they run: what a profile predicts of them can be held against this."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

from splitbus_gateway.local_profile import LocalSlices
from splitbus_runtime.engine import Array
from splitbus_runtime.profiler import Stopwatch, reading, sample
from splitbus_runtime.shelf import Slice
from splitbus_schemas.messages import NodeProfile

ROUNDS: Final = 7


@dataclass(frozen=True, slots=True)
class CutTimes:
    """Head and tail at a cut, predicted and measured, as shares of the whole model's time."""

    cut: int
    head: float
    tail: float
    measured_head: float
    measured_tail: float

    @property
    def errors(self) -> tuple[float, float]:
        """How far head and tail are predicted wrongly, relative to what was measured."""
        return abs(self.head / self.measured_head - 1), abs(self.tail / self.measured_tail - 1)


def measure_cuts(
    slices: LocalSlices, profile: NodeProfile, stopwatch: Stopwatch, cuts: Iterable[int], *, rounds: int = ROUNDS
) -> Iterator[CutTimes]:
    """Time head and tail at each of the profile's `cuts`, in rounds with the whole: a machine that changes its speed
    does so for all three. Raises ModelError.
    """
    end = slices.graph.steps
    whole = slices.open(slices.name(0, end))
    feed = {spec.name: sample(spec) for spec in whole.manifest.inputs}
    elapsed = dict(zip(profile.cuts, accumulate(profile.block_ms), strict=True))
    for cut in cuts:
        parts = [slices.open(slices.name(0, cut)), slices.open(slices.name(cut, end))]
        live = feed | {name: array for name, array, _ in parts[0].run(feed)}
        times = np.array([[run_ms(part, live, stopwatch) for part in (*parts, whole)] for _ in range(rounds)])
        head, tail = np.median(times[:, :2] / times[:, 2:], axis=0)
        share = elapsed[cut] / profile.whole_ms
        yield CutTimes(cut, share, 1 - share, float(head), float(tail))


def run_ms(part: Slice, feed: Mapping[str, Array], stopwatch: Stopwatch) -> float:
    """Milliseconds of a run: the median of some in a row, the first left out."""
    return reading(lambda: part.run(feed), stopwatch) * 1e3
