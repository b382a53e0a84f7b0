"""Keeps a node's profiles current, block by block, between the frames that it runs. `freshness` decides.

A walk begins at the inputs of a frame's slice, as the frame had them, and goes from block to block: each is opened,
timed, closed again, and gives the next one its inputs.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from splitbus_runtime.engine import Array
from splitbus_runtime.freshness import FRAMES, LEAST_REST_S, READINGS, RECENT_S, Blocks, Rhythm, last_uses, rest_s
from splitbus_runtime.profiler import LEAST_RUNS, LEAST_SECONDS, Stopwatch
from splitbus_runtime.pulse import Pulse
from splitbus_runtime.shelf import Shelf, Slice
from splitbus_schemas.errors import SplitbusError
from splitbus_schemas.messages import NodeProfile, ProfileRequest

log = logging.getLogger(__name__)

GAP_SECONDS: Final = 0.02
"""How often it is looked for a gap between frames while a block waits for one; a frame's end is told at once."""

PATIENCE_SECONDS: Final = 3.0
"""A block that finds no gap for so long is given up, and the walk with it."""

APART_SECONDS: Final = 0.3
"""Between two readings of a block that seems to have changed: what disturbed the first one is over."""

GIVEN_UP_SECONDS: Final = 60.0
OPENING_SECONDS: Final = 0.02
"""What opening a block is expected to take before one was opened."""

_T = TypeVar("_T")
_Given: TypeAlias = list[tuple[str, Array, bool]]


@dataclass(frozen=True, slots=True)
class _Frame:
    """The frame that ran last: between which cuts of which model, and on what."""

    model: str
    first: int
    last: int
    feeds: Mapping[str, Array]
    own_file: bool = False
    """The model in one piece ran, which is slower or faster than its slices."""

    @property
    def slice(self) -> tuple[str, int, int, bool]:
        return self.model, self.first, self.last, self.own_file


@dataclass(slots=True)
class _Walk:
    """Blocks timed one after the other on the tensors of one frame; `place` is the next one's in the span."""

    slice: tuple[str, int, int, bool]
    known: ProfileRequest
    span: range
    uses: dict[str, int]
    live: dict[str, Array]
    place: int = 0


class _Interrupted(Exception):  # noqa: N818 - no error: frames come too fast, or the node stops
    """There was no gap for a run."""


class Refresher:
    """One node's. `run` and `ran_whole` are on the frames' way: they time what runs, and keep what it ran on."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        stopwatch: Stopwatch,
        tell: Callable[[NodeProfile], None],
        count: Callable[[str, int], None],
        pulse: Pulse,
        name: str,
    ) -> None:
        self._shelf, self._stopwatch = shelf, stopwatch
        self.idle: Callable[[], bool] = lambda: True
        """Whether no frame runs, waits or is out; the node's own."""
        self._tell, self._count, self._pulse = tell, count, pulse
        self._lock = threading.Lock()
        self._known: dict[str, Blocks] = {}
        self._frame: _Frame | None = None
        self._ran_at = float("-inf")
        self._seconds: deque[float] = deque(maxlen=FRAMES)
        self._rhythm = Rhythm()
        self._running = 0
        self._walk: _Walk | None = None
        self._spent = 0.0
        """Seconds of work in this turn."""
        self._opening_s = OPENING_SECONDS
        self._ended = threading.Event()
        """A frame has ended: there may be a gap."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        """Refresh from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Refresh no more; waits for a run under way."""
        self._closing.set()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def profiled(self, request: ProfileRequest, found: NodeProfile, alone_ms: Mapping[str, float]) -> None:
        """A whole profile was made; `alone_ms` is what each block took when it ran by itself."""
        with self._lock:
            self._known[found.model] = Blocks.of(request, found, alone_ms, time.monotonic())
            self._walk = None

    # On the way of frames

    def run(self, piece: Slice, feeds: Mapping[str, Array]) -> list[tuple[str, Array, bool]]:
        """The slice's outputs for a frame, as `Slice.run` gives them. Raises ModelError."""
        manifest = piece.manifest
        return self._watched(lambda: piece.run(feeds), _Frame(manifest.model, manifest.first, manifest.last, feeds))

    def run_whole(self, run: Callable[[], _T], feeds: Mapping[str, Array]) -> _T:
        """What `run` gives for a frame that the model's own file answers, on the one model that was profiled here."""
        known = next(iter(self._known.values())) if len(self._known) == 1 else None
        if known is None:
            return run()
        return self._watched(run, _Frame(known.profile.model, 0, known.profile.cuts[-1], feeds, own_file=True))

    def _watched(self, run: Callable[[], _T], frame: _Frame) -> _T:
        given: list[_T] = []
        began = time.monotonic()
        with self._lock:
            self._running += 1
            self._rhythm = self._rhythm.with_frame(began)
        try:
            seconds = self._stopwatch.time(lambda: given.append(run()))
        finally:
            with self._lock:
                self._running -= 1
        with self._lock:
            if self._frame is None or self._frame.slice != frame.slice:
                self._seconds.clear()
            self._seconds.append(seconds)
            self._frame, self._ran_at = frame, time.monotonic()
        self._ended.set()
        return given[0]

    # Between frames

    def _loop(self) -> None:
        rest = LEAST_REST_S
        while not self._closing.wait(rest):
            with self._pulse.working("timing a block anew"):
                rest = self._attempt()

    def _attempt(self) -> float:
        """One block, or none; how long to rest then."""
        self._spent = 0.0
        try:
            self._turn()
        except (_Interrupted, SplitbusError) as error:
            self._walk = None
            self._count("blocks_given_up", 1)
            log.debug("no block was timed: %s", error)
            return max(rest_s(self._spent), GIVEN_UP_SECONDS)
        finally:
            self._count("blocks_us", int(self._spent * 1e6))
        return rest_s(self._spent)

    def _turn(self) -> None:
        """One block, or none. Raises _Interrupted, BlobError and ModelError."""
        now = time.monotonic()
        with self._lock:
            frame, at, walk = self._frame, self._ran_at, self._walk
            known = self._known.get(frame.model) if frame is not None else None
        if frame is None or known is None or now - at > RECENT_S:
            return
        if walk is None or walk.slice != frame.slice or walk.known is not known.request:
            span = known.span(frame.first, frame.last)
            if len(span) < 2 or not any(known.stale(place, now) for place in span):  # one block is its own measure
                return
            walk = self._begin(known, frame, span)
        self._step(known, walk)
        walk.place += 1
        self._walk = walk if walk.place < len(walk.span) else None

    def _begin(self, known: Blocks, frame: _Frame, span: range) -> _Walk:
        began = time.perf_counter()
        inputs = [{spec.name for spec in self._shelf.manifest(known.blocks[place].id).inputs} for place in span]
        self._spent += time.perf_counter() - began
        return _Walk(frame.slice, known.request, span, last_uses(inputs), dict(frame.feeds))

    def _step(self, known: Blocks, walk: _Walk) -> None:
        """Time the walk's next block, unless it was timed of late, and have the one behind it find its inputs."""
        place, now = walk.span[walk.place], time.monotonic()
        self._wait(self._opening_s)
        began = time.perf_counter()
        piece = self._shelf.open(known.blocks[place].id)
        self._opening_s = time.perf_counter() - began
        self._spent += self._opening_s
        given = self._once(piece, walk.live, known.blocks[place].alone_ms / 1e3)[1]  # finds its caches cold
        if known.stale(place, now):
            self._judge(known, walk, place, lambda: self._reading(known, walk, place, piece))
        walk.live.update({name: array for name, array, _ in given})
        walk.live = {name: array for name, array in walk.live.items() if walk.uses.get(name, -1) > walk.place}

    def _judge(self, known: Blocks, walk: _Walk, place: int, read: Callable[[], float]) -> None:
        """Read the block, again when it seems to have changed, and tell when it has."""
        found = [read()]
        while known.is_off(place, found[-1]) and len(found) < READINGS:
            if self._closing.wait(APART_SECONDS):
                raise _Interrupted("the node stops")
            found.append(read())
        with self._lock:
            if self._known.get(walk.slice[0]) is not known:  # profiled anew meanwhile
                return
            fresh, moved = known.read(place, found, time.monotonic())
            self._known[walk.slice[0]] = fresh
        self._count("blocks_timed", 1)
        if moved:
            self._count("blocks_moved", 1)
            self._tell(fresh.profile)

    def _reading(self, known: Blocks, walk: _Walk, place: int, piece: Slice) -> float:
        """What the block takes inside the whole, in ms, were the node as fast as when it was profiled."""
        times: list[float] = []
        while len(times) < LEAST_RUNS or sum(times) < LEAST_SECONDS:
            seconds, _ = self._once(piece, walk.live, times[-1] if times else known.blocks[place].alone_ms / 1e3)
            times.append(seconds)
        with self._lock:
            took = statistics.median(self._seconds) if self._frame and self._frame.slice == walk.slice else None
        if took is None:
            raise _Interrupted("frames run on another slice now")
        expected = known.whole if walk.slice[3] else known.took(walk.span)
        return known.inside(place, statistics.median(times) * 1e3, took * 1e3 / max(expected, 1e-9))

    def _once(self, piece: Slice, live: Mapping[str, Array], expected_s: float) -> tuple[float, _Given]:
        """Run it in the next gap; seconds by the stopwatch, and what it gave."""
        self._wait(expected_s)
        given: _Given = []
        began = time.perf_counter()
        seconds = self._stopwatch.time(lambda: given.extend(piece.run(live)))
        self._spent += time.perf_counter() - began
        return seconds, given

    def _wait(self, run_s: float) -> None:
        """For a gap between frames in which a run fits. Raises _Interrupted."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while (now := time.monotonic()) < give_up and not self._closing.is_set():
            self._ended.clear()
            with self._lock:
                free = not self._running and self._rhythm.has_room(now, run_s)
            if free and self.idle():
                return
            self._ended.wait(GAP_SECONDS)
        raise _Interrupted("frames left no gap for it")
