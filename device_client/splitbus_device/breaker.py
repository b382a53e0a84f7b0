"""Routes on which frames wait in vain are left alone for a while. Pure but for its lock; the clock is passed in.

A worker that hangs says nothing and leaves no will for many seconds. When most of a route's latest frames had to be
sent again, it rests: the first sound of a worker that had been silent ends that (a probe's echo does); for one that
talks, but is too slow, its word that it is well does, or time, longer at each relapse.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Nodes: TypeAlias = tuple[str, ...]
"""The workers of a route, in order."""

LIMIT: Final = 3
OF_LATE: Final = 5
"""So many of the latest frames: one may be lost, two a pause of the worker; of a slow one, some may be in time."""

REST_S: Final = 2.0
MAX_REST_S: Final = 60.0
"""The first rest, and the longest; each is twice the one before."""

SILENCE_S: Final = 1.5
"""One that talks has answered a probe by then, however slow it is: each frame that waits in vain has one sent."""

SILENT_REST_S: Final = 20.0
"""A worker that says nothing at all is tried after so long: probes might be what is lost."""


@dataclass(slots=True)
class _Case:
    """A route that let frames wait."""

    struck: deque[float | None] = field(default_factory=lambda: deque(maxlen=OF_LATE))
    """When each of the latest frames had waited in vain; None for one that was answered in time."""
    rest_s: float = REST_S
    rested: float = float("-inf")
    """When the present rest began."""

    @property
    def strikes(self) -> list[float]:
        """When those were that count, the oldest first."""
        return [at for at in self.struck if at is not None]


class Breaker:
    """Which routes are at rest. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cases: dict[Nodes, _Case] = {}
        self._heard: dict[str, float] = {}

    def strike(self, nodes: Nodes, now: float) -> bool:
        """A frame waited in vain there. True when the route is at rest from now on."""
        with self._lock:
            case = self._cases.setdefault(nodes, _Case())
            case.struck.append(now)
            if len(case.strikes) < LIMIT or self._is_resting(nodes, case, now):
                return False
            again = case.rested > float("-inf")
            case.rested, case.rest_s = now, min(2 * case.rest_s, MAX_REST_S) if again else REST_S
            return True

    def fine(self, nodes: Nodes) -> None:
        """A frame was answered in time there; once all of the latest were, what was before is forgotten."""
        if nodes not in self._cases:
            return
        with self._lock:
            case = self._cases.get(nodes)
            if case is None:
                return
            case.struck.append(None)
            if not case.strikes:
                del self._cases[nodes]

    def sound(self, node: str, now: float) -> bool:
        """A node said something. True when a rest ends by that: it had been silent all the time."""
        with self._lock:
            before, self._heard[node] = self._heard.get(node, float("-inf")), now
            case = self._cases.get((node,))
            if case is None or case.rested == float("-inf") or not _is_silent(before, case, now):
                return False
            del self._cases[node,]
            return True

    def forget(self, node: str) -> bool:
        """The node began anew. True when a rest ends by that."""
        with self._lock:
            cases = [nodes for nodes in self._cases if node in nodes]
            ended = [self._cases.pop(nodes).rested for nodes in cases]
            return any(rested > float("-inf") for rested in ended)

    def rests(self, nodes: Nodes, now: float) -> bool:
        """Whether to leave that route alone."""
        if nodes not in self._cases:
            return False
        with self._lock:
            case = self._cases.get(nodes)
            return case is not None and self._is_resting(nodes, case, now)

    def resting(self, now: float) -> list[str]:
        """Workers whose own routes are at rest; of a longer route nobody knows whose fault it is."""
        with self._lock:
            cases = [(nodes, case) for nodes, case in self._cases.items() if len(nodes) == 1]
            return sorted(nodes[0] for nodes, case in cases if self._is_resting(nodes, case, now))

    def _is_resting(self, nodes: Nodes, case: _Case, now: float) -> bool:
        silent = len(nodes) == 1 and _is_silent(self._heard.get(nodes[0], float("-inf")), case, now)
        return now < case.rested + (SILENT_REST_S if silent else case.rest_s)


def _is_silent(heard: float, case: _Case, now: float) -> bool:
    """Whether a worker that was last heard then has said nothing since frames wait for it.

    One of them may have waited before it fell silent, and another reason may have been to blame.
    """
    return heard < case.strikes[0] or (heard < case.rested and now - heard >= SILENCE_S)
