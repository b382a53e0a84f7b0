"""What a stream says of itself: decisions when they differ and now and then, complaints once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from splitbus_gateway.checks import Measured, note
from splitbus_gateway.decisions import Case, signature, with_flips
from splitbus_schemas import messages as m

AlertText: TypeAlias = tuple[str, str]
"""One word that also names the counter, and the reason."""


@dataclass(slots=True)
class Turn:
    """What a step of a stream wants to have published."""

    plan: m.Plan | None = None
    decision: m.Decision | None = None
    alerts: list[AlertText] = field(default_factory=list)


class Teller:
    """Remembers what was said last, and what the frames of the running plan took."""

    def __init__(self, decision_s: float) -> None:
        self._decision_s = decision_s
        self._decided_at = float("-inf")
        self._signature: tuple[object, ...] = ()
        self._said: tuple[str, ...] = ()
        self._heard: m.StreamStats | None = None
        self.measured: Measured | None = None

    def note(self, plan: m.Plan, stats: m.StreamStats | None) -> None:
        """Take a report of the device, once."""
        if stats is not None and stats is not self._heard:
            self._heard, self.measured = stats, note(self.measured, plan, stats)

    def tell(self, turn: Turn, decision: m.Decision, now: float, case: Case | None = None) -> None:
        """Say it when it is another decision, or was not said for long."""
        new = signature(decision)
        if turn.plan or new != self._signature or now - self._decided_at >= self._decision_s:
            turn.decision = with_flips(decision, case) if case else decision
            self._signature, self._decided_at = new, now

    def forget(self) -> None:
        """The decision may stand nowhere any more."""
        self._decided_at = float("-inf")

    def once(self, turn: Turn, what: str, text: str) -> None:
        """Complain, unless that was said last."""
        if (what, text) != self._said:
            self._said = (what, text)
            turn.alerts.append((what, text))

    def all_well(self) -> None:
        """Nothing to complain of: the next complaint is news."""
        self._said = ()
