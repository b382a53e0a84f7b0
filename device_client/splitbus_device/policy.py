"""What to do next with a frame under way: pure decisions, the clock passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from splitbus_runtime.engine import Array
from splitbus_runtime.sameness import lead

MARGIN_S: Final = 0.005
MARGIN_SHARE: Final = 0.05
"""For waking up and handing over the answer: this share of the time there is, but no less than MARGIN_S."""

LOCAL_SPREAD: Final = 1.2
"""A local run may take this much longer than its usual time."""

PATIENCE: Final = 3.0
"""An alternate is tried when a route takes so many times what was predicted."""

MIN_PATIENCE_S: Final = 0.05
"""However fast the route should be: a garbage collection is not a failure."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A frame under way, as far as the decision needs it. Times in seconds of one clock."""

    expected_s: float
    """What the route should take from sending to answer."""
    sent: float
    """When it was last sent."""
    routes_left: int
    failed: str = ""
    """Why the present route will not answer: refused, lost; "" while it may."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for the answer until then."""

    until: float


@dataclass(frozen=True, slots=True)
class Resend:
    """Send the same activation along the next route."""


@dataclass(frozen=True, slots=True)
class RunLocally:
    """Answer with the local model."""

    reason: str


NextStep: TypeAlias = Wait | Resend | RunLocally


def in_doubt(outputs: Sequence[Array], below: float) -> bool:
    """Whether an answer's best score leads the second best by less than `below`; one without scores always is."""
    return not lead(outputs) >= below


def time_for_another(expected_s: float, last: float, now: float) -> bool:
    """Whether an answer that takes `expected_s` would be there before `last`."""
    return now + expected_s < last


def latest_start(deadline: float, local_s: float, now: float) -> float:
    """When a local run must start to be in time; the deadline itself when it cannot be in time any more."""
    margin = max(MARGIN_S, MARGIN_SHARE * (deadline - now))
    start = deadline - local_s * LOCAL_SPREAD - margin
    return start if start > now else deadline


def next_step(flight: Flight, last_start: float, now: float) -> NextStep:
    """Wait, try an alternate, or answer locally. `last_start` is `latest_start` at the frame's beginning."""
    if now >= last_start:
        return RunLocally(flight.failed or "deadline")
    in_time = time_for_another(flight.expected_s, last_start, now)
    if flight.failed:
        return Resend() if flight.routes_left and in_time else RunLocally(flight.failed)
    impatient = flight.sent + max(PATIENCE * flight.expected_s, MIN_PATIENCE_S)
    if not flight.routes_left or not in_time:
        return Wait(last_start)
    return Resend() if now >= impatient else Wait(min(impatient, last_start))
