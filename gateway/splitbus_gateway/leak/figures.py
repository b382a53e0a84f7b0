"""How much of the picture what crosses each cut shows, measured by a decoder that is fitted to rebuild it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

import numpy as np

from splitbus_gateway.graph import Cut, ModelGraph
from splitbus_gateway.leak.decoder import Decoder, enough, fit
from splitbus_gateway.leak.grids import Picture, as_grid, find_picture
from splitbus_gateway.leak.likeness import psnr, ssim
from splitbus_gateway.samples import Feed
from splitbus_gateway.walk import Here, walk
from splitbus_runtime.engine import Array
from splitbus_schemas.errors import ModelError

log = logging.getLogger(__name__)

MIN_PICTURES: Final = 16
"""Half of them are fitted on, half reported."""

MAX_FITTED: Final = 96
MAX_REPORTED: Final = 16
"""So that a figure takes seconds, and what crosses an early cut fits into memory for all pictures at once."""

MAX_CUTS: Final = 16

_TINY: Final = 1e-6

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike pictures and what was made of them are: means over the reported pictures, of 0 to 1, and in dB."""

    ssim: float
    psnr_db: float


@dataclass(frozen=True, slots=True)
class Shown:
    """How alike a decoder's pictures are that sees what crosses a cut; `measured_at` is the cut where that was found.

    A cut that was not measured shows no more than the one before it, and at least what one behind it shows.
    """

    cut: int
    likeness: Likeness
    measured_at: int


@dataclass(frozen=True)
class Rebuilt:
    """The figures of a model's cuts; `nothing` is what the mean picture reaches, by somebody who sees nothing.

    `why_not` says in a sentence why there are none.
    """

    cuts: tuple[Shown, ...] = ()
    nothing: Likeness | None = None
    fitted: int = 0
    reported: int = 0
    why_not: str = ""


def rebuild_pictures(
    graph: ModelGraph,
    cuts: Sequence[Cut],
    samples: Sequence[Feed],
    *,
    chosen: Sequence[Cut] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Rebuilt:
    """Fit on one half of the samples at each of the `chosen` cuts, and say how well the other half is rebuilt.

    None chosen: those of `telling`. All `cuts` from the first chosen one on get a figure; the input is the picture
    itself and needs none.
    """
    picture = find_picture(graph.inputs)
    if picture is None:
        return Rebuilt(why_not="no input of the model is a picture")
    if len(samples) < MIN_PICTURES:
        return Rebuilt(why_not=f"{len(samples)} pictures are too few, {MIN_PICTURES} are needed")
    halves = _Halves.of(picture, samples[::2], samples[1::2])
    inner = telling(cuts) if chosen is None else chosen
    found: dict[int, Likeness] = {}
    for done, here in enumerate(walk(graph, inner, [*halves.fitted, *halves.reported])):
        progress(done, len(inner))
        try:
            found[here.cut.index] = _at(here, halves)
        except ModelError as error:
            log.info("cut %d: what it shows of the picture is not measured: %s", here.cut.index, error)
    progress(len(inner), len(inner))
    spread = _spread([cut.index for cut in cuts], found)
    return Rebuilt(spread, halves.nothing, len(halves.fitted), len(halves.reported))


def telling(cuts: Sequence[Cut], limit: int = MAX_CUTS) -> list[Cut]:
    """The cuts worth a measurement: those that carry less than all before them, then others evenly; never the input."""
    less: list[Cut] = []
    others: list[Cut] = []
    least = float("inf")
    for cut in cuts[1:] if cuts and not cuts[0].index else cuts:
        size = sum(tensor.elements for tensor in cut.tensors)
        (less if size < least else others).append(cut)
        least = min(least, size)
    return sorted([*less[:limit], *_some(others, limit - len(less))], key=lambda cut: cut.index)


@dataclass(frozen=True, eq=False)
class _Halves:
    """The pictures (samples, H, W, C), of 0 to 1 over those that are fitted on."""

    fitted: Sequence[Feed]
    reported: Sequence[Feed]
    pictures: Array
    originals: Array
    mean: Array

    @classmethod
    def of(cls, picture: Picture, first: Sequence[Feed], second: Sequence[Feed]) -> _Halves:
        fitted, reported = _some(first, MAX_FITTED), _some(second, MAX_REPORTED)
        pictures, originals = picture.shown(fitted), picture.shown(reported)
        low, high = pictures.min(axis=(0, 1, 2)), pictures.max(axis=(0, 1, 2))
        span = np.maximum(high - low, _TINY)
        pictures, originals = (pictures - low) / span, np.clip((originals - low) / span, 0, 1)
        return cls(fitted, reported, pictures, originals, pictures.mean(axis=0))

    @cached_property
    def nothing(self) -> Likeness:
        return _likeness(self.originals, [self.mean] * len(self.originals))


def _some(values: Sequence[T], limit: int) -> list[T]:
    """So many of them at most, evenly chosen."""
    places = np.linspace(0, len(values) - 1, max(0, min(limit, len(values)))).round().astype(int)
    return [values[place] for place in places]


def _at(here: Here, halves: _Halves) -> Likeness:
    grids = as_grid({t.name: [value[t.name] for value in here.values] for t in here.cut.tensors}, halves.mean.shape[:2])
    if not np.isfinite(grids).all():
        raise ModelError("its activations are not finite")
    count = len(halves.fitted)
    taken = _some(range(count), enough(grids[0, ..., 0].size))
    decoder = fit(grids[taken], halves.pictures[taken], halves.mean)
    seen, nothing = _likeness(halves.originals, _clipped(decoder, grids[count:])), halves.nothing
    return seen if seen.ssim > nothing.ssim else nothing  # nobody needs to do worse than who sees nothing


def _clipped(decoder: Decoder, grids: Array) -> Array:
    return np.clip(decoder.rebuild(grids), 0, 1)


def _likeness(originals: Array, others: Sequence[Array] | Array) -> Likeness:
    pairs = list(zip(originals, others, strict=True))
    return Likeness(
        round(float(np.mean([ssim(*pair) for pair in pairs])), 4),
        round(float(np.mean([min(psnr(*pair), 99.0) for pair in pairs])), 2),
    )


def _spread(cuts: Sequence[int], found: dict[int, Likeness]) -> tuple[Shown, ...]:
    """Figures for all cuts behind the first measured one: never less than a later cut's, which can be computed from it.

    A cut between two measured ones shows what the one before it does, at most.
    """
    best: dict[int, Shown] = {}
    most: Shown | None = None
    for index in sorted(found, reverse=True):
        if most is None or found[index].ssim >= most.likeness.ssim:
            most = Shown(index, found[index], index)
        best[index] = most
    shown = []
    for cut in sorted(cuts):
        before = max((index for index in best if index <= cut), default=None)
        if before is not None:
            shown.append(Shown(cut, best[before].likeness, best[before].measured_at))
    return tuple(shown)
