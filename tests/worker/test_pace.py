"""Whether runs take longer than they did: told when they do for a while, and when they do no more."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitbus_worker.pace import (
    CALM_S,
    LOOKS,
    MAX_LOOKS,
    REFRESH_S,
    RELAPSE_S,
    SHARE,
    SLOW,
    TRIAL_MS,
    TRY_S,
    WELL,
    WELL_SHARE,
    Pace,
)

SLICE = "a" * 64
TICK_S = 0.05


class Worker:
    """A worker in its own time: frames of `ms` come `fps` a second, trials run when they are due and no frame does."""

    def __init__(self, ms: float = 7.0) -> None:
        self.pace, self.ms, self.now = Pace(), ms, 0.0
        self.told: list[tuple[float, float | None]] = []
        self.trial_s = 0.0
        self._next_frame = 0.0

    def live(self, seconds: float, fps: float, slowness: Callable[[], float] = lambda: 1.0) -> Worker:
        """Let time pass; `slowness` is asked for at every run."""
        end = self.now + seconds
        self._next_frame = max(self._next_frame, self.now)
        while self.now < end:
            if fps and self.now >= self._next_frame:
                self._next_frame += 1 / fps
                self._take(self.pace.note_run(SLICE, self.ms * 1e3 * slowness(), self.now))
            elif self.pace.is_due(SLICE, self.now):
                each_s = self.ms / 1e3 * slowness()
                spent_s = each_s * self.pace.trial_runs(SLICE)
                self.trial_s += spent_s
                self.now += spent_s
                self._take(self.pace.note_trial(SLICE, each_s * 1e6, self.now))
            self.now += TICK_S
        return self

    def slow_after(self, since: float) -> float:
        """Seconds until it was told that it is slow."""
        return next(at for at, factor in self.told if at >= since and factor) - since

    def well_after(self, since: float) -> float:
        """Seconds until it was told that it is well."""
        return next(at for at, factor in self.told if at >= since and factor is None) - since

    def _take(self, changed: bool) -> None:
        if changed:
            self.told.append((self.now, self.pace.factor))


def ten() -> float:
    return 10.0


def test_ten_times_slower_is_told_within_a_second_and_its_end_as_well() -> None:
    worker = Worker().live(30, 10)
    assert not worker.told
    begun = worker.live(3, 10, ten).now - 3
    assert worker.slow_after(begun) < 1.0
    assert worker.pace.factor == pytest.approx(10.0, rel=0.2)
    worker.live(20, 0, ten)
    ended = worker.now
    worker.live(3, 0)
    assert worker.well_after(ended) < 1.2
    assert worker.pace.factor is None


def test_it_is_seen_without_frames_when_they_stop_because_of_it() -> None:
    """A camera leaves a slow worker alone after three frames."""
    worker = Worker().live(30, 10)
    begun = worker.now
    worker.live(0.3, 10, ten).live(3, 0, ten)
    assert worker.slow_after(begun) < 1.5


@pytest.mark.parametrize("ms", [0.3, 1.0])
def test_runs_that_are_too_short_to_show_it_are_tried_when_frames_cease(ms: float) -> None:
    """A processor that is taken away for 90 ms of every 100 is there for most runs of a millisecond."""
    worker = Worker(ms).live(30, 10)
    begun = worker.now
    worker.live(0.3, 10).live(3, 0, ten)
    assert worker.slow_after(begun) < 2.5


@pytest.mark.parametrize("fps", [0.2, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("ms", [0.2, 7.0, 60.0, 200.0])
def test_trials_of_one_that_is_well_take_less_than_a_hundredth_of_a_core(fps: float, ms: float) -> None:
    worker = Worker(ms).live(600, fps)
    once = LOOKS * max(ms, TRIAL_MS) / 1e3
    often = max(ms, TRIAL_MS) / 1e3 / CALM_S if ms <= TRIAL_MS or fps < 2 else max(ms, TRIAL_MS) / 1e3 / REFRESH_S
    assert worker.trial_s <= once + 600 * max(often, 1e-3) * 1.2
    if ms <= 60:
        assert worker.trial_s < 0.01 * 600 * (ms / TRIAL_MS if ms > TRIAL_MS else 1)
    assert not worker.told


@pytest.mark.parametrize("ms", [0.2, 7.0, 60.0, 200.0])
def test_trials_of_one_that_is_slow_take_a_bounded_share(ms: float) -> None:
    worker = Worker(ms).live(60, 10).live(3, 10, ten)
    before = worker.trial_s
    worker.live(120, 0, ten)
    runs = worker.trial_s - before  # on the clock; of the processor it gets a tenth of that
    assert worker.pace.factor is not None
    assert runs / 10 <= 120 * max(SHARE, 1.5 * TRIAL_MS / 1e3 / TRY_S)


def test_without_frames_there_are_no_trials() -> None:
    worker = Worker().live(30, 10).live(10, 0)
    before = worker.trial_s
    worker.live(600, 0)
    assert worker.trial_s == before


def test_one_long_run_is_no_slowness() -> None:
    """What a stopped process was at takes as long as it was stopped."""
    worker = Worker().live(30, 10)
    lengths = iter([700.0])
    worker.live(30, 10, lambda: next(lengths, 1.0))
    assert not worker.told


def test_a_busy_moment_is_no_slowness() -> None:
    worker = Worker().live(30, 10)
    for _ in range(10):
        worker.live(0.6, 10, lambda: 6.0).live(5, 10)
    assert not worker.told


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_noise_of_a_fifth_is_never_told(seed: int) -> None:
    chance = random.Random(seed)
    worker = Worker()
    for _ in range(6):
        worker.live(20, 10, lambda: chance.uniform(0.8, 1.2)).live(5, 0, lambda: chance.uniform(0.8, 1.2))
    assert not worker.told


def test_each_relapse_takes_longer_to_be_forgiven_up_to_a_limit() -> None:
    worker = Worker().live(60, 10)
    waits = []
    for _ in range(8):
        waits.append(one_spell(worker))
        worker.live(1, 10)
    assert all(later > 1.5 * earlier for earlier, later in pairwise(waits[:5]))
    assert waits[0] < 1.2
    longest = WELL_SHARE * MAX_LOOKS * TRY_S
    assert all(longest <= wait < 1.5 * longest for wait in waits[4:])
    worker.live(2 * RELAPSE_S, 10)
    assert one_spell(worker) < 1.2


def one_spell(worker: Worker) -> float:
    """How long it took after three slow seconds until it was well."""
    worker.live(3, 10, ten)
    assert worker.pace.factor is not None
    ended = worker.now
    while worker.pace.factor is not None:
        worker.live(TICK_S, 0)
    return worker.now - ended


def test_frames_that_are_another_kind_of_work_are_no_slowness() -> None:
    """A model whose work depends on what it is shown: trials are as ever."""
    worker = Worker().live(30, 10)
    for number in range(600):
        now = worker.now + number / 10
        assert not worker.pace.note_run(SLICE, 70_000.0, now)
        if worker.pace.is_due(SLICE, now):
            assert not worker.pace.note_trial(SLICE, 7000.0, now)
    assert worker.pace.factor is None


def test_another_factor_is_told_seldom() -> None:
    worker = Worker().live(30, 10).live(5, 10, ten)
    worker.live(60, 10, lambda: 4.0)
    assert [round(factor or 0) for _, factor in worker.told] == [10, 4]


def test_a_worker_that_was_slow_from_its_start_is_no_slow_one_when_it_gets_faster() -> None:
    worker = Worker().live(60, 10, ten).live(60, 10)
    assert not worker.told


def test_a_slice_that_was_never_tried_does_not_begin_what_its_trials_could_not_end() -> None:
    worker = Worker().live(30, 10)
    for number in range(200):
        now = worker.now + number * 0.1
        assert not worker.pace.note_run("b" * 64, 5000.0 if number < 150 else 50_000.0, now)
        if number > 150 and number % 2:
            worker.pace.note_trial(SLICE, 70_000.0, now + 0.05)
            if worker.pace.factor is not None:
                return
    pytest.fail("the trials of the other slice tell it")


def test_without_trials_it_is_never_told_because_its_end_could_not_be() -> None:
    pace = Pace()
    assert not any(pace.note_run(SLICE, 7000.0 if number < 100 else 70_000.0, number / 10) for number in range(300))


@given(
    st.lists(st.tuples(st.sampled_from(["run", "trial", "give_up"]), st.floats(0, 1e9), st.floats(0, 5)), max_size=200)
)
def test_whatever_comes_the_factor_is_told_once_for_each_change(events: list[tuple[str, float, float]]) -> None:
    pace, now, told = Pace(), 0.0, None
    for what, us, later in events:
        now += later
        match what:
            case "run":
                changed = pace.note_run(SLICE, us, now)
            case "trial":
                changed = pace.note_trial(SLICE, us, now)
            case _:
                changed = pace.give_up(now)
        assert changed == (pace.factor != told) or (changed and pace.factor is not None)
        told = pace.factor
        assert told is None or told >= min(SLOW, WELL)
        assert pace.trial_runs(SLICE) >= 0
