"""Which block of a profiled model is timed anew, when, and what counts as a change. Pure; the clock is passed in.

A reading is held against the one that the profile was made of, both relative to a slice around the block: what slows
the whole node down is not the block's. The blocks of the slice that frames run on are timed one after the other, so
that it is always the oldest reading's turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from splitbus_runtime.blockfit import LEAST_SHARE
from splitbus_schemas.messages import NodeProfile, ProfileRequest

SHARE: Final = 0.003
"""Of one core, at most so much: with links and heartbeat a node is to stay below a hundredth."""

LEAST_REST_S: Final = 1.0
STALE_S: Final = 60.0
"""A younger reading is not repeated."""

RECENT_S: Final = 5.0
"""Frames that ran no longer ago tell how fast the node is now; without any, nothing is timed."""

FRAMES: Final = 5
"""Whose median is what the slice takes now."""

LEAST_CHANGE: Final = 0.25
LEAST_PART: Final = 0.01
SPREADS: Final = 2.0
"""A block moved when it is off by more than a quarter, a hundredth of the whole, and twice its spread,"""

READINGS: Final = 2
"""in so many readings, all on one side."""

MARGIN: Final = 1.5
"""A run is begun when the next frame is expected no sooner than in so many times what it takes."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block: ms alone and inside the whole as profiled, ms inside as now believed, and when it was read last."""

    id: str
    alone_ms: float
    profiled_ms: float
    ms: float
    spread_ms: float
    at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Blocks:
    """A model's blocks as a node knows them; `profile` is what was told last, in answer to `request`."""

    request: ProfileRequest
    profile: NodeProfile
    blocks: tuple[Block, ...]
    whole: float
    """What the model's own file takes, or its slice, in ms as profiled."""

    @classmethod
    def of(cls, request: ProfileRequest, profile: NodeProfile, alone_ms: Mapping[str, float], now: float) -> Self:
        """As the profile has just found them."""
        rows = zip(request.blocks, profile.block_ms, profile.spread_ms, strict=True)
        blocks = tuple(Block(name, alone_ms[name], ms, ms, spread, now) for name, ms, spread in rows)
        return cls(request, profile, blocks, profile.local_ms or profile.whole_ms)

    def span(self, first: int, last: int) -> range:
        """The blocks of the slice between two cuts; empty when it does not begin and end where blocks do."""
        ends = [0, *self.profile.cuts]
        return range(ends.index(first), ends.index(last)) if {first, last} <= set(ends) else range(0)

    def took(self, span: range) -> float:
        """What a slice of these blocks took when it was profiled, in ms."""
        return sum(self.blocks[place].profiled_ms for place in span)

    def stale(self, place: int, now: float) -> bool:
        """Whether the block is to be timed."""
        return now - self.blocks[place].at >= STALE_S

    def is_off(self, place: int, ms: float) -> bool:
        """Whether a block that takes `ms` inside the whole takes something else than was told."""
        block = self.blocks[place]
        least = max(LEAST_CHANGE * block.ms, LEAST_PART * self.profile.whole_ms, SPREADS * block.spread_ms)
        return abs(ms - block.ms) > least

    def inside(self, place: int, alone_ms: float, pace: float) -> float:
        """What a block takes inside the whole, on a node as fast as when it was profiled, by a reading of it alone."""
        block, steady_ms = self.blocks[place], alone_ms / max(pace, 1e-9)
        # what running alone costs beside the work is as it was: what is more, or less, is the block's own
        return max(block.profiled_ms + steady_ms - block.alone_ms, LEAST_SHARE * steady_ms)

    def read(self, place: int, found_ms: Sequence[float], now: float) -> tuple[Self, bool]:
        """With readings (ms inside the whole) of a block; whether it moved, and the profile is to be told anew."""
        block = replace(self.blocks[place], at=now)
        sides = {ms > block.ms for ms in found_ms}
        moved = len(found_ms) >= READINGS and len(sides) == 1 and all(self.is_off(place, ms) for ms in found_ms)
        if moved:
            ms = statistics.mean(found_ms)
            block = replace(block, ms=ms, spread_ms=max(block.spread_ms, max(found_ms) - min(found_ms)))
        blocks = (*self.blocks[:place], block, *self.blocks[place + 1 :])
        return replace(self, blocks=blocks, profile=_told(self.profile, place, block) if moved else self.profile), moved


def _told(before: NodeProfile, place: int, block: Block) -> NodeProfile:
    """The profile with one block's time changed, at all batches and in the model's own file in proportion."""
    times = [*before.block_ms]
    ratio = block.ms / times[place] if times[place] > 0 else 1.0
    times[place] = round(block.ms, 4)
    spreads = [*before.spread_ms]
    spreads[place] = round(block.spread_ms, 4)
    grown = block.ms - before.block_ms[place]
    whole = before.whole_ms + grown
    local = before.local_ms and before.local_ms * whole / before.whole_ms
    batches = []
    for batch in before.batches:
        more = [*batch.block_ms]
        more[place] = round(more[place] * ratio, 4)
        changed = batch.whole_ms + more[place] - batch.block_ms[place]
        batches.append(batch.model_copy(update={"block_ms": more, "whole_ms": round(max(changed, 0.0), 4)}))
    return before.model_copy(
        update={
            "block_ms": times,
            "spread_ms": spreads,
            "whole_ms": round(max(whole, 0.0), 4),
            "local_ms": local and round(max(local, 0.0), 4),
            "batches": batches,
        }
    )


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When frames begin to run: the last one's time, and the mean interval of late."""

    at: float = float("-inf")
    every_s: float = float("inf")

    def with_frame(self, began: float) -> Rhythm:
        """One more frame."""
        gap = began - self.at
        if not 0 <= gap < RECENT_S:
            return Rhythm(max(began, self.at))
        return Rhythm(began, gap if self.every_s == float("inf") else self.every_s + (gap - self.every_s) / 4)

    def has_room(self, now: float, run_s: float) -> bool:
        """Whether a run would be over before the next frame is expected, or none comes any more."""
        if self.every_s == float("inf"):
            return True
        left = self.at + self.every_s - now
        return left > MARGIN * run_s or left < -self.every_s


def rest_s(spent_s: float) -> float:
    """How long to rest after work that took so long."""
    return max(spent_s / SHARE, LEAST_REST_S)


def last_uses(inputs: Sequence[Collection[str]]) -> dict[str, int]:
    """For each tensor that blocks in a row take, the place of the last one that does: it need not be kept longer."""
    return {name: place for place, names in enumerate(inputs) for name in names}
