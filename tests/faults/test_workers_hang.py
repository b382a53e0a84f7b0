"""Workers that hang (SIGSTOP), or get a tenth of the processor: drained, and used again when they are well."""

from __future__ import annotations

import contextlib
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.brokers import Broker
from tests.faults.plant import CLOUD, EDGE, EDGE_ROUTE, Plant, plant
from tests.faults.record import Record, runs
from tests.faults.test_control_dies import good

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

DRAIN_S = 3.0
"""From the fault to the last job that is sent there."""

REPAIR_S = 2.0
"""From its end to an answer along the best way."""

LOST_AFTER_S = 18.0
"""The broker drops a client that says nothing for one and a half times its keepalive of 10 s."""

HEAVY = 6
"""A model that takes the workers some 7 ms: with less, a slow worker would hardly be noticed."""

APART_S = 10.0
"""Spells that follow each other's repair faster are relapses, after which a worker takes longer to believe that it is
well."""

USUAL_S = 3.0
"""Until it knows what its runs usually take."""

PERIOD_S, SHARE = 0.03, 0.1
"""A tenth of a processor, in slices like those of Linux's own bandwidth control, out of step with the frames."""


def told(site: Plant, since: float, seconds: float) -> None:
    """What happened when a repair took longer than is promised; printed, so that a failed test shows it."""
    if seconds > REPAIR_S:
        print(f"{seconds:.1f} s until it was used again:\n{site.timeline(since - 1.0)}")  # noqa: T201


def drained(site: Plant, since: float) -> float:
    """Seconds from the fault to the last job that the camera sent to the sick worker."""
    jobs = site.witness.jobs(EDGE, since)
    return jobs[-1] - since if jobs else 0.0


def hang(site: Plant, seconds: float) -> tuple[float, float]:
    """Seconds to the last job sent to it while it hung, and from its waking to an answer along the best way."""
    site.steady(EDGE_ROUTE)
    site.pause(0.0, 0.3)
    stopped = site.strike(EDGE, signal.SIGSTOP)
    time.sleep(seconds)
    last = drained(site, stopped)
    woken = site.strike(EDGE, signal.SIGCONT)
    best = site.answered("the best plan is back", woken, lambda one: one.route == EDGE_ROUTE and one.asked > woken, 60)
    told(site, woken, best.at - woken)
    return last, best.at - woken


def test_a_worker_hangs(broker: Broker, tmp_path: Path, seed: int, record: Record) -> None:
    with plant(broker, tmp_path, seed) as site:
        spells = [5.0 if number % 3 else LOST_AFTER_S for number in range(runs())]
        times = [hang(site, seconds) for seconds in spells]
        tally = site.judge()
        drains, repairs = ([pair[which] * 1e3 for pair in times] for which in (0, 1))
        record(
            "worker hangs (SIGSTOP)", len(times), drains, tally.frames, tally.lost, tally.doubled, tally.late,
            f"its stop to the last job sent there; its waking to an answer by it: worst {max(repairs):.0f} ms",
        )  # fmt: skip
        assert good(tally), tally
        assert max(drains) <= DRAIN_S * 1e3
        assert max(repairs) <= REPAIR_S * 1e3
        assert site.starts == {"gateway": 1, EDGE: 1, CLOUD: 1}


@contextlib.contextmanager
def throttled(site: Plant, name: str) -> Iterator[None]:
    """The process runs for a tenth of the time only."""
    over = threading.Event()

    def deal() -> None:
        while not over.wait(PERIOD_S * SHARE):
            site.strike(name, signal.SIGSTOP)
            over.wait(PERIOD_S * (1 - SHARE))
            site.strike(name, signal.SIGCONT)

    dealer = threading.Thread(target=deal, name="test-throttle")
    dealer.start()
    try:
        yield
    finally:
        over.set()
        dealer.join()
        site.strike(name, signal.SIGCONT)


def slow_down(site: Plant, more_s: float, earliest: float) -> tuple[float, float]:
    """Seconds until frames were answered elsewhere without waiting, and from the end to an answer the best way.

    `more_s` is for how long it stays slow after that; it begins no sooner than `earliest`.
    """
    site.steady(EDGE_ROUTE, 60)
    time.sleep(max(0.0, earliest - time.monotonic()))
    site.pause(0.0, 0.3)
    with throttled(site, EDGE):
        begun = time.monotonic()
        elsewhere = site.log_of_frames.wait("it is drained", lambda: in_a_row(site, begun), 30, site.tale)
        time.sleep(more_s)
    ended = time.monotonic()
    best = site.answered("the best plan is back", ended, lambda one: one.route == EDGE_ROUTE and one.asked > ended, 90)
    told(site, ended, best.at - ended)
    return elsewhere - begun, best.at - ended


def in_a_row(site: Plant, since: float, frames: int = 5) -> float | None:
    """When the first of so many frames in a row was asked that were answered elsewhere at the first attempt."""
    given = sorted((one for one in site.log_of_frames.since(since) if one.asked >= since), key=lambda one: one.index)
    for place in range(len(given) - frames + 1):
        row = given[place : place + frames]
        if all(one.route != EDGE_ROUTE and one.attempts <= 1 for one in row):
            return row[0].asked
    return None


def test_a_worker_gets_ten_times_slower(broker: Broker, tmp_path: Path, seed: int, record: Record) -> None:
    """It goes on talking, and nobody starts it anew: it sees itself that it is slow, and that it is well again."""
    with plant(broker, tmp_path, seed, width=HEAVY) as site:
        site.steady(EDGE_ROUTE, 60)
        times, earliest = list[tuple[float, float]](), time.monotonic() + USUAL_S
        for number in range(runs()):
            times.append(slow_down(site, 12.0 if number % 3 == 1 else 1.0, earliest))
            earliest = time.monotonic() + APART_S
        tally = site.judge()
        drains, repairs = ([pair[which] * 1e3 for pair in times] for which in (0, 1))
        record(
            "worker gets a tenth of the processor", len(times), drains,
            tally.frames, tally.lost, tally.doubled, tally.late,
            "the fault to frames that do not wait for it; its end to an answer by it: "
            f"median {statistics.median(repairs):.0f} ms, worst {max(repairs):.0f} ms",
        )  # fmt: skip
        assert good(tally), tally
        assert max(drains) <= DRAIN_S * 1e3
        assert max(repairs) <= REPAIR_S * 1e3
        assert site.starts == {"gateway": 1, EDGE: 1, CLOUD: 1}
