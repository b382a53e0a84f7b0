"""Whether the other end of a connection still answers: a dead one never does, a slow link takes long. Pure.

Silence asks for a ping, the sooner the livelier the connection was. A ping has to be answered within ANSWER_S; longer
while what we sent is on its way: a backlog that moves, one that the kernel sends again, a link whose answers take long
anyway. So a cut of two seconds, or a queue of two, ends nothing; a router that forgot us is noticed sooner than three.
"""

from __future__ import annotations

from typing import Final

QUIET_S: Final = 1.2
"""A connection on which nothing comes is asked so often: a node's heartbeat, once a second, spares the asking."""

LIVELY_QUIET_S: Final = 0.5
"""The same where something came many times a second."""

LIVELY_GAPS: Final = 4.0
"""So many times the usual pause between messages is silence."""

ANSWER_S: Final = 2.1
"""An answer takes no longer, or there will be none: a cut of two seconds passes."""

STANDING_S: Final = 3.25
"""What the peer's kernel has not acknowledged for so long is lost: it is sent again after 0.2, 0.6, 1.4 and 3 s, and
the last of these finds a link that is back after two."""

CLOSED_S: Final = 5.5
"""The same where the peer's kernel says that it has no room: whoever reads there is slow, or hangs."""

DOUBTED_S: Final = 0.7
"""When another connection of ours to the same broker has just died, an answer has to come within this time."""

MOVED_S: Final = 0.3
"""A backlog that stood for so long, and then moved, was held up by a link that is back."""

MAX_SLOW_S: Final = 4.0
"""So much patience is added, at most, for a link whose answers take long."""

LOOK_S: Final = 0.1
"""Often enough to see a backlog move, seldom beside a busy connection's frames: a look is a call to the kernel."""

_FORGET: Final = 0.8
"""Of the slowest answer of late, with each that is quicker."""

_GAP_WEIGHT: Final = 0.1


class Liveness:
    """One connection, from `now` on, in seconds of a clock that only has to run."""

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._gap_s = QUIET_S
        self._slow_s = 0.0
        self._asked_at: float | None = None
        self._doubted = False
        self._left = 0
        self._stands_since = self._looked_at = now
        self._acked_at = float("-inf")

    def heard(self, now: float) -> None:
        """Something came, whatever it was."""
        self._gap_s += _GAP_WEIGHT * (min(now - self._heard_at, QUIET_S) - self._gap_s)
        self._heard_at = now
        if self._asked_at is not None:
            self._slow_s = min(max(now - self._asked_at, _FORGET * self._slow_s), MAX_SLOW_S)
        self._asked_at, self._doubted = None, False

    def is_to_look(self, now: float) -> bool:
        """Whether to look at the backlog again."""
        return now - self._looked_at >= LOOK_S

    def backlog(self, left: int, now: float, *, acked_at: float = float("-inf")) -> None:
        """So many bytes of ours has the peer's kernel not acknowledged yet; `acked_at` is when it last said anything.

        One that shrinks is a sign of life, and answers wait behind it; one that is taken at once proves nothing: a
        proxy, or a router's buffer, takes small things although nobody is behind it.
        """
        stood_s = self._looked_at - self._stands_since
        moves = 0 < left < self._left or (left < self._left and stood_s >= MOVED_S)
        if moves and self._asked_at is not None:
            self._asked_at = now
        if self._left == 0 or left < self._left:
            self._stands_since = now
        self._left, self._looked_at, self._acked_at = left, now, acked_at

    def asked(self, now: float) -> None:
        """A ping was sent."""
        self._asked_at = now if self._asked_at is None else self._asked_at

    def doubt(self) -> None:
        """Another connection to the same broker has died: ask at once, and wait less."""
        self._doubted = True

    def is_to_ask(self, sent_at: float, now: float) -> bool:
        """Whether to send a ping; `sent_at` is when we last sent anything, of which the broker has to hear as well."""
        return self._asked_at is None and (self._doubted or now >= self._next_ping(sent_at))

    def is_dead(self, now: float) -> bool:
        """Whether to give the connection up."""
        return self._asked_at is not None and now >= self._deadline(self._asked_at)

    def due_in(self, sent_at: float, now: float) -> float:
        """Seconds until one of the two may change."""
        due = self._next_ping(sent_at) if self._asked_at is None else self._deadline(self._asked_at)
        return 0.0 if self._doubted and self._asked_at is None else max(0.0, due - now)

    def _next_ping(self, sent_at: float) -> float:
        quiet_s = min(QUIET_S, max(LIVELY_QUIET_S, LIVELY_GAPS * self._gap_s))
        return min(self._heard_at + quiet_s, sent_at + QUIET_S)

    def _deadline(self, asked_at: float) -> float:
        if self._doubted:
            return asked_at + DOUBTED_S + self._slow_s
        until = asked_at + ANSWER_S + self._slow_s
        if not self._left:
            return until
        stands_s = CLOSED_S if self._acked_at > self._stands_since + MOVED_S else STANDING_S
        return max(until, self._stands_since + stands_s)
