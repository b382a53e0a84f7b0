"""A node's health: what hangs, what went wrong of late, and since when; the same for camera, worker and gateway."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from splitbus_runtime.pulse import Pulses
from splitbus_runtime.secrets import redacted
from splitbus_schemas.messages import NodeHealth

State: TypeAlias = Literal["ok", "degraded", "stuck"]

LATELY_SECONDS: Final = 60.0
"""So long a trouble is told after it happened."""

TELL_SECONDS: Final = 10.0
"""Health that does not change is told again so often, at once when it changes."""

STALE_SECONDS: Final = 10.0
"""Without a heartbeat through the broker for so long, the broker or our way to it does not work."""

MAX_REASONS: Final = 8
MAX_REASON_CHARS: Final = 300
MAX_KINDS: Final = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a node does, why not well, and since when (as told by `stamp`)."""

    state: State
    reasons: tuple[str, ...] = ()
    since: str = ""
    kinds: frozenset[str] = frozenset()
    """What failed of late, in one word each."""

    def __str__(self) -> str:
        return f"{self.state}: {'; '.join(self.reasons)}" if self.reasons else self.state


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose health it is."""

    node: str
    boot: str
    tier: Literal["device", "edge", "cloud", "gateway"]
    software: str


@dataclass(slots=True)
class _Trouble:
    """One kind of trouble: when it happened of late, and what was said of it last."""

    times: deque[float]
    reason: str = ""


def judged(stuck: Sequence[str], echo_age_s: float | None, troubles: Mapping[str, tuple[int, str]]) -> Verdict:
    """The verdict on what hangs, the age of the last heartbeat (None before the first), and troubles: count and words.

    Pure. What hangs comes first.
    """
    reasons = list(stuck)
    if echo_age_s is not None and echo_age_s >= STALE_SECONDS:
        reasons.append(f"no heartbeat has come back through the broker for {echo_age_s:.0f} s")
    for what, (count, words) in sorted(troubles.items(), key=lambda item: -item[1][0]):
        times = "once" if count == 1 else f"{count} times"
        reasons.append(f"{what} {times} in the last minute, the last: {words}")
    state: State = "stuck" if stuck else "degraded" if reasons else "ok"
    shown = tuple(reason[:MAX_REASON_CHARS] for reason in reasons[:MAX_REASONS])
    return Verdict(state, shown, kinds=frozenset(troubles))


class Health:
    """Keeps what verdicts are made of. Thread-safe; `stamp` gives the time of day for people."""

    def __init__(self, stamp: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self.pulses = Pulses(clock)
        self._clock, self._stamp = clock, stamp
        self._lock = threading.Lock()
        self._troubles: dict[str, _Trouble] = {}
        self._state: State = "ok"
        self._since = stamp()
        self._told: tuple[tuple[State, frozenset[str]], float] | None = None

    def trouble(self, what: str, reason: str) -> None:
        """Something was refused, dropped or failed; `what` names its kind."""
        now = self._clock()
        with self._lock:
            trouble = self._troubles.pop(what, None) or _Trouble(deque(maxlen=1000))
            trouble.times.append(now)
            trouble.reason = redacted(reason)
            self._troubles[what] = trouble
            while len(self._troubles) > MAX_KINDS:
                del self._troubles[next(iter(self._troubles))]

    def verdict(self, echo_age_s: float | None = None, also: Sequence[str] = ()) -> Verdict:
        """How the node does now; `also` are sentences on what else hangs."""
        now = self._clock()
        found = judged([*also, *self.pulses.stuck(now)], echo_age_s, self._lately(now))
        with self._lock:
            if found.state != self._state:
                self._state, self._since = found.state, self._stamp()
            return replace(found, since=self._since)

    def is_due(self, verdict: Verdict) -> bool:
        """Whether the verdict is to be told: its state or what fails is another, or it was not told for a while."""
        now, what = self._clock(), (verdict.state, verdict.kinds)
        due = self._told is None or self._told[0] != what or now - self._told[1] >= TELL_SECONDS
        if due:
            self._told = (what, now)
        return due

    def message(
        self,
        verdict: Verdict,
        who: Identity,
        *,
        uptime_s: float,
        ages: Mapping[str, float],
        counters: Mapping[str, int],
    ) -> NodeHealth:
        """What is published; `ages` in seconds, beside those of the loops that are at work."""
        all_ages = self.pulses.busy_s(self._clock()) | dict(ages)
        return NodeHealth(
            node=who.node,
            boot=who.boot,
            tier=who.tier,
            software=who.software,
            state=verdict.state,
            since=verdict.since,
            reasons=list(verdict.reasons),
            uptime_s=round(uptime_s, 1),
            ages_s={what: round(age, 3) for what, age in all_ages.items()},
            counters=dict(counters),
        )

    def _lately(self, now: float) -> dict[str, tuple[int, str]]:
        with self._lock:
            for what, trouble in list(self._troubles.items()):
                while trouble.times and now - trouble.times[0] > LATELY_SECONDS:
                    trouble.times.popleft()
                if not trouble.times:
                    del self._troubles[what]
            return {what: (len(trouble.times), trouble.reason) for what, trouble in self._troubles.items()}
