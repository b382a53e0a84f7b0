"""From what the blocks of a model take when each is run alone to what they take inside a head or a tail. Pure.

Alone, each pays for a call, for the layout of the tensors at its ends and for what onnxruntime would have fused across
a cut. So the same cost of a call is taken off all blocks, and between cuts at which head and tail were timed as they
would run, the blocks share out the time between: only their proportions are believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

LEAST_SHARE: Final = 0.1
"""What a block keeps at least when the cost of a call is taken off."""


def fit(alone_ms: Sequence[float], whole_ms: float, anchors: Mapping[int, tuple[float, float]]) -> list[float]:
    """Each block's time inside the whole; they sum to `whole_ms`.

    `anchors` gives measured head and tail (ms) at cuts, by the number of blocks before the cut.
    """
    alone = np.maximum(np.asarray(alone_ms, np.float64), 0.0)
    count = len(alone)
    if count < 2:
        return [whole_ms] * count
    call = max(0.0, (alone.sum() - whole_ms) / (count - 1))
    reached = np.cumsum([0.0, *np.maximum(alone - call, LEAST_SHARE * alone)])
    places = {0: 0.0, count: whole_ms}
    if anchors:
        found = {place: min(max(_elapsed(whole_ms, *times), 0.0), whole_ms) for place, times in anchors.items()}
        # The first block is a head as it would run, and the last one a tail; but timed heads and tails outweigh them.
        places |= {1: min(alone[0], *found.values()), count - 1: max(whole_ms - alone[-1], *found.values())}
        places |= found
    knots = sorted(places)
    levels = np.maximum.accumulate([places[place] for place in knots])
    elapsed = [_between(reached, place, knots, levels) for place in range(count + 1)]
    return np.diff(elapsed).tolist()


def _elapsed(whole_ms: float, head_ms: float, tail_ms: float) -> float:
    """The time before a cut that is nearest to the head measured and to the whole less the tail, in proportion."""
    near, far = max(head_ms, 1e-9) ** 2, max(tail_ms, 1e-9) ** 2
    return (head_ms * far + (whole_ms - tail_ms) * near) / (near + far)


def _between(reached: np.ndarray, place: int, knots: Sequence[int], levels: np.ndarray) -> float:
    """The time before `place`: between the knots around it, by the blocks' proportions."""
    right = max(1, int(np.searchsorted(knots, place)))
    low, high = knots[right - 1], knots[right]
    span = reached[high] - reached[low]
    share = (reached[place] - reached[low]) / span if span > 0 else (place - low) / (high - low)
    return float(levels[right - 1] + share * (levels[right] - levels[right - 1]))
