"""What of a model is timed, and whose turn it is: a profile taken in a crowd is wrong. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

PATIENCE_S: Final = 20.0
"""A node that takes longer gives its turn to the next, and goes on."""

NODES_A_TURN: Final = 8
"""With many nodes several take turns at once, so that the last one does not wait for minutes."""


class Turns:
    """Admits nodes one after the other; who was admitted stays so until it needs no profile any more."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def admit(self, needing: Sequence[str], now: float, stuck: Collection[str] = ()) -> set[str]:
        """Those of `needing`, the most important first, that may profile now; nobody waits for one that is `stuck`."""
        self._since = {node: since for node, since in self._since.items() if node in needing}
        places = 1 + len(needing) // NODES_A_TURN
        busy = sum(1 for node, since in self._since.items() if now - since < PATIENCE_S and node not in stuck)
        for node in needing:
            if busy < places and node not in self._since:
                self._since[node] = now
                busy += 1
        return set(self._since)


ANCHORS: Final = 4
"""Cuts at which head and tail are timed as they would run. With so many, times at the cuts between are within a few
percent; each costs two slices to be fetched and run."""


def anchor_cuts(cuts: Sequence[int]) -> list[int]:
    """Those of `cuts` (the last is the model's end) at which head and tail are timed, evenly spread over the blocks."""
    step = len(cuts) / (ANCHORS + 1)
    places = sorted({round(place * step) for place in range(1, ANCHORS + 1)} - {0, len(cuts)})
    return [cuts[place - 1] for place in places]
