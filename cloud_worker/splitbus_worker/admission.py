"""Whether a worker takes a job: a pure decision over what it knows at that moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from splitbus_schemas.limits import MAX_STAGES
from splitbus_schemas.packet_types import Job

SMOOTHING: Final = 0.2
"""Weight of the newest run in a slice's service time: a change shows after some five frames."""


class Refused(Exception):  # noqa: N818 - a verdict, not an error
    """A job that is not run: one word for programs, one sentence for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class State:
    """What a worker knows when a job arrives."""

    node: str
    stopping: bool = False
    waiting: int = 0
    """Jobs in the line, of all devices."""
    waiting_of_device: int = 0
    """Those of the job's device."""
    line_limit: int = 16
    running: int = 0
    concurrency: int = 1
    ahead_us: int = 0
    """Expected time of all jobs in the line and under way."""
    service_us: int = 0
    """Expected time of this job once it runs; 0 when the slice never ran."""


def check_route(job: Job, state: State) -> None:
    """Raises Refused for a job that this worker cannot even begin with."""
    if state.stopping:
        raise Refused("stopping", f"{state.node} is stopping")
    if job.route[0].node != state.node:
        raise Refused("route", f"the job's route begins at {job.route[0].node}, this is {state.node}")
    if len(job.spent) >= MAX_STAGES:
        raise Refused("route", f"the job has been at {len(job.spent)} nodes already, the limit is {MAX_STAGES}")


def admit(job: Job, state: State, *, train_us: int = 0) -> None:
    """Return when the job may join the line; Refused says why not.

    `train_us` is how long the packet took to arrive, which its budget does not know. An idle worker tries whatever
    has time left: that is how a service time which was measured in a bad moment heals.
    """
    left_us = job.budget_us - train_us
    if job.budget_us and left_us <= 0:
        raise Refused("expired", f"the frame's {job.budget_us / 1e3:.0f} ms were over when it arrived")
    if state.waiting >= state.line_limit and not state.waiting_of_device:
        raise Refused("busy", f"{state.waiting} frames are waiting at {state.node}, its limit")
    if state.running + state.waiting < state.concurrency:
        return
    needed_us = state.ahead_us // state.concurrency + state.service_us
    if job.budget_us and needed_us > left_us:
        raise Refused("busy", f"{state.node} would need {needed_us / 1e3:.0f} ms, {left_us / 1e3:.0f} ms are left")


def smoothed(before_us: int, newest_us: int) -> int:
    """A service time after one more run; `before_us` 0 for none yet."""
    return newest_us if not before_us else round(before_us + SMOOTHING * (newest_us - before_us))
