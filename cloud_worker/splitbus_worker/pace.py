"""Whether this worker's runs take longer than they did: it knows first, and while it gets no frames only it does.

Each run is held against the usual time of its own slice, each trial (a few runs of a warm slice on made-up tensors)
against that of earlier trials. The median of the latest few ratios decides, so one long run is nothing, and a trial
has to bear it out, for frames may be work of another kind. A worker that is slow, or may be, tries itself again when
no frame runs; one that is well hardly ever does.
Pure but for its lock; the clock is passed in, in seconds.
"""

from __future__ import annotations

import statistics
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

SLOW: Final = 2.5
"""Runs that take so many times as long as usual are slow; a busy moment of the machine makes one or two of these."""

WELL: Final = 1.8
"""Up to here they are as usual again."""

WINDOW: Final = 5
"""So many looks decide, by their median;"""

SURE_S: Final = 0.5
"""and slowness that is over sooner is somebody's busy moment, no reason to plan anew."""

APART_S: Final = 0.08
"""A look counts no sooner after the one before, but for trials: many frames at once are one look at the machine."""

LOOKS: Final = 3
WELL_SHARE: Final = 0.6
"""Such a share of so many looks has to be well, of twice as many at each relapse,"""

MAX_LOOKS: Final = 48
RELAPSE_S: Final = 10.0
"""which is slowness that begins so soon after the last one ended."""

USUAL: Final = 101
"""The usual time is the median of so many."""

LEAST_RUNS: Final = 5
LEAST_TRIALS: Final = 3
"""With fewer the usual time is not known."""

MAX_SLICES: Final = 256
"""Slices whose usual times are remembered."""

TRIAL_MS: Final = 10.0
"""What a trial computes, or one run: a processor that is taken away in slices is not noticed by a run of one."""

MAX_TRIAL_RUNS: Final = 64

TRY_S: Final = 0.2
SHARE: Final = 0.1
"""While it is slow it tries itself so often, or as seldom as makes trials this share of the time."""

DOUBT_S: Final = 0.1
"""How soon a long run is followed by a trial, when no frame came since; several are, between frames."""

IDLE_S: Final = 0.5
CALM_S: Final = 5.0
"""When frames cease to come there is a trial, no sooner after the last one: somebody may have left because of us."""

REFRESH_S: Final = 60.0
"""While they come, there is one so often."""

RETELL: Final = 2.0
RETELL_S: Final = 1.0
"""While it is slow, another factor is told when it differs by so much, and no sooner."""


@dataclass(slots=True)
class _Usual:
    """What a slice takes, in microseconds, when all is well."""

    runs: deque[float] = field(default_factory=lambda: deque(maxlen=USUAL))
    trials: deque[float] = field(default_factory=lambda: deque(maxlen=USUAL))

    def of(self, *, trial: bool) -> float | None:
        times, least = (self.trials, LEAST_TRIALS) if trial else (self.runs, LEAST_RUNS)
        return max(statistics.median(times), 1.0) if len(times) >= least else None


class Pace:
    """How many times longer than usual runs take. Thread-safe."""

    def __init__(self) -> None:
        self.factor: float | None = None
        """What is to be told; None while all is as usual."""
        self._lock = threading.Lock()
        self._usual: OrderedDict[str, _Usual] = OrderedDict()
        self._ratios: deque[float] = deque(maxlen=WINDOW)
        self._looked = self._tried = self._told = self._ended = float("-inf")
        self._since: float | None = None
        """Since when the looks' median is slow."""
        self._borne_out = False
        """Whether the latest trial was slow, too."""
        self._looks = LOOKS
        self._well: deque[bool] = deque()
        """Which of the latest looks were, while it is slow."""
        self._ran_since = False
        """Whether a frame ran since the last trial."""

    def note_run(self, slice_id: str, us: float, now: float) -> bool:
        """A frame ran for so long. True when another factor is to be told."""
        with self._lock:
            self._ran_since = True
            return self._note(slice_id, us, now, trial=False)

    def note_trial(self, slice_id: str, us: float, now: float) -> bool:
        """A run in a trial took so long, on average. True when another factor is to be told."""
        with self._lock:
            self._ran_since, self._tried = False, now
            return self._note(slice_id, us, now, trial=True)

    def give_up(self, now: float) -> bool:
        """No slice can be tried: nobody would see the end. True when another factor is to be told."""
        with self._lock:
            return self._end(now)

    def trial_runs(self, slice_id: str) -> int:
        """How many runs make a trial of that slice; 0 while its frames' usual time is not known."""
        with self._lock:
            usual_us = self._usual.get(slice_id, _Usual()).of(trial=False)
            return 0 if usual_us is None else min(max(round(TRIAL_MS * 1e3 / usual_us), 1), MAX_TRIAL_RUNS)

    def is_due(self, slice_id: str, now: float) -> bool:
        """Whether to try that slice now, if nothing else runs."""
        with self._lock:
            usual = self._usual.get(slice_id, _Usual())
            usual_us = usual.of(trial=False)
            if usual_us is None:
                return False
            since = now - self._tried
            if self.factor is not None:
                takes_s = max(TRIAL_MS / 1e3, usual_us / 1e6)
                return min(since, now - self._looked) >= max(TRY_S, takes_s / SHARE)
            if self._since is not None:
                return since >= DOUBT_S
            if self._ratios and self._ratios[-1] > SLOW:
                return min(since, now - self._looked) >= DOUBT_S
            if usual.of(trial=True) is None:
                return since >= DOUBT_S
            idle = now - self._looked >= IDLE_S
            return self._ran_since and since >= (CALM_S if idle else REFRESH_S)

    def _note(self, slice_id: str, us: float, now: float, *, trial: bool) -> bool:
        usual = self._usual.setdefault(slice_id, _Usual())
        self._usual.move_to_end(slice_id)
        if len(self._usual) > MAX_SLICES:
            self._usual.popitem(last=False)
        usual_us = usual.of(trial=trial)
        self._learn(usual, us, usual_us, trial=trial)
        if usual_us is None or (not trial and now - self._looked < APART_S):
            return False
        self._looked = now
        ratio = us / usual_us
        self._ratios.append(ratio)
        if trial:
            self._borne_out = ratio >= SLOW
        if self.factor is not None:
            return self._go_on(self.factor, ratio, now)
        slow = self._is_slow(ratio, now)
        return slow and usual.of(trial=True) is not None and self._begin(now)  # else its trials could not show the end

    def _learn(self, usual: _Usual, us: float, usual_us: float | None, *, trial: bool) -> None:
        """Of a slow worker nothing; trials are all alike, and few: one that takes much longer is not usual."""
        if self.factor is not None:
            return
        if not trial:
            usual.runs.append(us)
        elif usual_us is None or us < SLOW * usual_us:
            usual.trials.append(us)

    def _is_slow(self, ratio: float, now: float) -> bool:
        if len(self._ratios) < WINDOW or statistics.median(self._ratios) < SLOW:
            self._since, self._borne_out = None, False
            return False
        self._since = now if self._since is None else self._since
        return now - self._since >= SURE_S and ratio >= SLOW and self._borne_out

    def _begin(self, now: float) -> bool:
        self._looks = min(2 * self._looks, MAX_LOOKS) if now - self._ended < RELAPSE_S else LOOKS
        self._well = deque(maxlen=self._looks)
        return self._tell(statistics.median(self._ratios), now)

    def _go_on(self, factor: float, ratio: float, now: float) -> bool:
        self._well.append(ratio <= WELL)
        if len(self._well) == self._looks and sum(self._well) >= WELL_SHARE * self._looks:
            return self._end(now)
        middle = max(statistics.median(self._ratios), SLOW)
        moved = max(middle, factor) > RETELL * min(middle, factor)
        return moved and ratio > WELL and now - self._told >= RETELL_S and self._tell(middle, now)

    def _tell(self, factor: float, now: float) -> bool:
        self.factor, self._told = round(factor, 1), now
        return True

    def _end(self, now: float) -> bool:
        was, self.factor, self._ended, self._since = self.factor, None, now, None
        self._borne_out = False
        self._ratios.clear()
        return was is not None
