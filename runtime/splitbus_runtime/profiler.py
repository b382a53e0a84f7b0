"""Times a model on this node, block by block between neighbouring cuts, and a few heads and tails as they would run.

Slices are opened one at a time, so a profile takes the memory of the whole model and one block. The whole model is the
metronome: it is timed again and again in between, and every reading is taken relative to it, so that what else the
machine does, or how it changes its clock, falls on both.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np

from splitbus_runtime.blockfit import fit
from splitbus_runtime.engine import Array, Session
from splitbus_runtime.shelf import Slice
from splitbus_schemas.errors import ModelError, SplitbusError
from splitbus_schemas.messages import BatchTimes, NodeProfile, ProfileRequest, TensorSpec

PASSES: Final = 2
"""Over all slices, some seconds apart: what disturbs one pass leaves the readings of the other."""

READINGS_A_PASS: Final = 3

LEAST_RUNS: Final = 3
"""Of a reading; the first does not count, it finds the caches as the slice before left them."""

LEAST_SECONDS: Final = 3e-3
"""Of a reading: very short runs are repeated until the clock's own noise is small beside them."""

MAX_SECONDS_A_READING: Final = 0.25
"""A slice so slow is not run again."""

BUDGET_SECONDS: Final = 18.0
"""No pass is begun, and no more anchors or batches are timed, that would go beyond: whoever starts a camera waits for
its first plan. A minute is the promise; what remains is for models whose single pass takes that long."""

EARLY_SECONDS: Final = 1.0
"""A profile whose first pass takes longer is told after that already: a first plan need not wait for the rest."""

BEAT_SECONDS: Final = 0.02
BEAT_SHARE: Final = 5.0
"""The whole is timed again after so many times what that took."""

HEADROOM_RUNS: Final = 6.0
"""No anchor is timed unless there is time for so many runs of the whole: two readings, and another beat."""

_LOCAL: Final = "local"
"""Stands for the model's own file among the slices."""

_Given: TypeAlias = list[tuple[str, Array, bool]]


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Seconds that a run takes on this node when nothing else runs there.

    With one thread that is the thread's own CPU time, times the slowdown that is emulated: it does not see other
    programs. With more threads it is the time on the wall.
    """

    threads: int = 0
    slowdown: float = 1.0

    def time(self, run: Callable[[], object]) -> float:
        """Run it once."""
        clock = time.thread_time if self.threads == 1 else time.perf_counter
        started = clock()
        run()
        return (clock() - started) * (self.slowdown if self.threads == 1 else 1.0)


class Slices(Protocol):
    """Where slices are opened: a node's shelf, or a model file that is cut here."""

    def open(self, slice_id: str) -> Slice:
        """The slice, not kept. Raises BlobError or ModelError."""


@dataclass(frozen=True, slots=True)
class Told:
    """How far a profile is: slices timed, and slices to be timed."""

    done: int
    total: int


def profile(
    request: ProfileRequest,
    slices: Slices,
    *,
    node: str,
    boot: str,
    local: Session | None = None,
    stopwatch: Stopwatch | None = None,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[Told], None] = lambda _: None,
    budget_s: float = BUDGET_SECONDS,
    early: Callable[[NodeProfile], None] = lambda _: None,
    early_s: float = EARLY_SECONDS,
    alone: Callable[[dict[str, float]], None] = lambda _: None,
) -> NodeProfile:
    """Time every block on the outputs of those before it, put right by the whole and by heads and tails at the anchors.

    `local` is the model in one piece, from its own file. `stopping` is asked between runs. `early` is given what is
    known after a first pass of more than `early_s` seconds, by the whole alone and without batches; `alone` what each
    block takes by itself, in ms. Raises BlobError, ModelError, and SplitbusError when told to stop.
    """

    def told(times: _Times, batches: Sequence[BatchTimes] = ()) -> NodeProfile:
        return NodeProfile(
            node=node,
            boot=boot,
            model=request.model,
            cuts=request.cuts,
            block_ms=_rounded(times.block_ms),
            spread_ms=_rounded(times.spread_ms),
            whole_ms=round(times.whole_ms, 4),
            local_ms=times.local_ms and round(times.local_ms, 4),
            runs=times.readings,
            batches=list(batches),
            round=request.round,
        )

    bench = _Bench(slices, stopwatch or Stopwatch(), stopping, progress, time.perf_counter() + budget_s)
    first = bench.time_all(request, batch=1, local=local, early=lambda times: early(told(times)), early_s=early_s)
    alone(dict(zip(request.blocks, first.alone_ms, strict=True)))
    sizes = sorted({*request.batches} - {1})
    return told(first, [times for batch in sizes if (times := bench.batch(request, first, batch))])


def sample(spec: TensorSpec, batch: int = 1) -> Array:
    """A tensor to run a model on when nothing better is at hand; unknown sizes are 1, a first one the batch."""
    shape = [(batch if axis == 0 else 1) if size is None else size for axis, size in enumerate(spec.shape)]
    if np.dtype(spec.dtype).kind == "f":
        return np.random.default_rng(0).random(shape, dtype=np.float32).astype(spec.dtype)
    return np.zeros(shape, dtype=spec.dtype)


def reading(run: Callable[[], object], stopwatch: Stopwatch) -> float:
    """Seconds of a run: the median of some in a row, the first left out."""
    begun = time.perf_counter()
    times: list[float] = []
    while len(times) <= LEAST_RUNS or time.perf_counter() - begun < LEAST_SECONDS:
        times.append(stopwatch.time(run))
        if time.perf_counter() - begun > MAX_SECONDS_A_READING:
            break
    return statistics.median(times[1:] or times)


def _take_readings(
    read: Callable[[], tuple[float, _Given]], metronome: _Metronome, found: list[tuple[float, float]]
) -> _Given:
    """A pass's readings (when, ms), the whole timed in between; one alone of what is slow. Gives what the last gave."""
    given: _Given = []
    for _ in range(READINGS_A_PASS):
        metronome.tick()
        started = time.perf_counter()
        ms, given = read()
        ended = time.perf_counter()
        found.append(((started + ended) / 2, ms))
        if ended - started > 2 * MAX_SECONDS_A_READING:
            break
    return given


@dataclass(frozen=True, slots=True)
class _Times:
    """Milliseconds at one batch size; the blocks sum to the whole."""

    block_ms: list[float]
    spread_ms: list[float]
    whole_ms: float
    readings: int
    alone_ms: list[float]
    local_ms: float | None = None


class _Metronome:
    """The whole model's readings over time."""

    def __init__(self, beat: Callable[[], float]) -> None:
        self._beat = beat
        self._at: list[float] = []
        self._ms: list[float] = []
        self._due = float("-inf")

    def tick(self, *, now: bool = False) -> None:
        """Time the whole when it is time to, or now."""
        started = time.perf_counter()
        if not now and started < self._due:
            return
        self._ms.append(self._beat())
        ended = time.perf_counter()
        self._at.append((started + ended) / 2)
        self._due = ended + max(BEAT_SECONDS, BEAT_SHARE * (ended - started))

    @property
    def ms(self) -> float:
        """The median."""
        return statistics.median(self._ms)

    def steady(self, readings: Iterable[tuple[float, float]]) -> list[float]:
        """Readings (when, ms) as they would be had the whole always taken its median."""
        return [ms * self.ms / max(float(np.interp(at, self._at, self._ms)), 1e-9) for at, ms in readings]


class _Bench:
    """Runs slices and keeps the readings; `deadline` is on the performance counter."""

    def __init__(
        self,
        slices: Slices,
        stopwatch: Stopwatch,
        stopping: Callable[[], bool],
        progress: Callable[[Told], None],
        deadline: float,
    ) -> None:
        self._slices, self._stopwatch, self._stopping, self._progress = slices, stopwatch, stopping, progress
        self._deadline = deadline
        self._told = Told(0, 0)

    def time_all(
        self,
        request: ProfileRequest,
        batch: int,
        *,
        local: Session | None = None,
        anchored: bool = True,
        passes: int = PASSES,
        early: Callable[[_Times], None] = lambda _: None,
        early_s: float = float("inf"),
    ) -> _Times:
        """Times at a batch size, in as many passes as the time allows, one at least."""
        whole = self._slices.open(request.whole)
        live = {spec.name: sample(spec, batch) for spec in whole.manifest.inputs}
        metronome = _Metronome(lambda: self._read(whole, live)[0])
        anchors = request.anchors if anchored else []
        extra = [slice_id for anchor in anchors for slice_id in (anchor.head, anchor.tail)]
        readings: dict[str, list[tuple[float, float]]] = {}
        self._told = Told(self._told.done, self._told.total + passes * (len(request.blocks) + len(extra)))

        def fitted() -> _Times:
            metronome.tick(now=True)
            steady = {slice_id: metronome.steady(found) for slice_id, found in readings.items()}
            return _fitted(request, steady, metronome.ms)

        for number in range(passes):
            began = time.perf_counter()
            for block in request.blocks:
                self._time(block, live, metronome, readings)
            if local is not None:
                self._time_local(local, live, metronome, readings)
            if number == 0 and time.perf_counter() - began > early_s:
                early(fitted())
            for slice_id in extra:
                if time.perf_counter() + HEADROOM_RUNS * metronome.ms / 1e3 < self._deadline:
                    self._time(slice_id, live, metronome, readings)
            if time.perf_counter() + (time.perf_counter() - began) > self._deadline:
                break
        return fitted()

    def batch(self, request: ProfileRequest, first: _Times, batch: int) -> BatchTimes | None:
        """Times at a larger batch; a model whose batch is fixed runs once for each frame. None when time is up."""
        inputs = self._slices.open(request.whole).manifest.inputs
        if not all(spec.shape and spec.shape[0] is None for spec in inputs):
            return _batch_times(batch, [ms * batch for ms in first.block_ms], first.whole_ms * batch)
        if time.perf_counter() > self._deadline:
            return None
        try:
            found = self.time_all(request, batch, anchored=False, passes=1)
        except ModelError:  # it says that its batch is free, but a shape inside is not
            return _batch_times(batch, [ms * batch for ms in first.block_ms], first.whole_ms * batch)
        return _batch_times(batch, found.block_ms, found.whole_ms)

    def _time(
        self,
        slice_id: str,
        live: dict[str, Array],
        metronome: _Metronome,
        readings: dict[str, list[tuple[float, float]]],
    ) -> None:
        """Take readings of a slice; what it gives is `live` for those that come after."""
        opened = self._open(slice_id, known=slice_id in readings)
        given = _take_readings(lambda: self._read(opened, live), metronome, readings.setdefault(slice_id, []))
        live.update({name: array for name, array, _ in given if name not in live})
        self._told = Told(self._told.done + 1, self._told.total)
        self._progress(self._told)

    def _time_local(
        self,
        local: Session,
        live: Mapping[str, Array],
        metronome: _Metronome,
        readings: dict[str, list[tuple[float, float]]],
    ) -> None:
        """Readings of the model in one piece; none when it does not take what its slices take."""
        feeds = {info.name: live[info.name] for info in local.inputs if info.name in live}
        found: list[tuple[float, float]] = []
        with contextlib.suppress(ModelError):
            _take_readings(lambda: (reading(lambda: local.run(feeds), self._stopwatch) * 1e3, []), metronome, found)
        if found:
            readings.setdefault(_LOCAL, []).extend(found)

    def _open(self, slice_id: str, *, known: bool) -> Slice:
        """The slice; fetching it the first time is not counted."""
        started = time.perf_counter()
        opened = self._slices.open(slice_id)
        self._deadline += 0.0 if known else time.perf_counter() - started
        return opened

    def _read(self, opened: Slice, live: Mapping[str, Array]) -> tuple[float, _Given]:
        """The median of some runs in a row, in ms, and what the last one gave."""
        given: _Given = []

        def run() -> None:
            nonlocal given
            if self._stopping():
                raise SplitbusError("the profile was given up: the node was told to stop")
            given = opened.run(live)

        return reading(run, self._stopwatch) * 1e3, given


def _fitted(request: ProfileRequest, steady: Mapping[str, list[float]], whole_ms: float) -> _Times:
    medians = [statistics.median(steady[block]) for block in request.blocks]
    places = {cut: place for place, cut in enumerate(request.cuts, start=1)}
    anchors = {
        places[anchor.cut]: (statistics.median(steady[anchor.head]), statistics.median(steady[anchor.tail]))
        for anchor in request.anchors
        if anchor.cut in places and anchor.head in steady and anchor.tail in steady
    }
    blocks = fit(medians, whole_ms, anchors)
    spreads = [_interquartile(steady[block]) * _ratio(blocks[i], medians[i]) for i, block in enumerate(request.blocks)]
    local_ms = statistics.median(steady[_LOCAL]) if _LOCAL in steady else None
    return _Times(blocks, spreads, whole_ms, min(len(steady[block]) for block in request.blocks), medians, local_ms)


def _batch_times(batch: int, block_ms: list[float], whole_ms: float) -> BatchTimes:
    return BatchTimes(batch=batch, block_ms=_rounded(block_ms), whole_ms=round(whole_ms, 4))


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _ratio(part: float, of: float) -> float:
    return part / of if of > 0 else 1.0


def _interquartile(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4)
    return high - low
