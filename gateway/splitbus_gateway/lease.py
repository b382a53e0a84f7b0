"""Which of a site's gateways leads: the rules of one candidate. Pure; its clock only has to run, not to be right.

The broker puts everything on the lease's topic into one order that all readers see. A candidate claims the round after
the highest that it knows of; the claim holds when it comes back and no other gateway's claim or word came after it was
made, nor one of that round before. The holder says its lease again and again, and leads while what it said lately came
back. A waiter claims when the lease was released, when the broker says that its holder is gone, or when nobody said one
for `seconds`. So no two lead at once by their own clocks, unless a broker calls one gone that it still listens to; and
what nodes and plans go by are the terms, which differ even then.

Beyond a bridge silence alone proves no death: there a holder is followed when its end was told, or when it said
nothing for `seconds` over a bridge that carried all that time. Each broker has an order of its own, so two that claim
at the same time on both sides may both lead until each has heard the other: the higher term stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from splitbus_gateway.bridge import Bridge
from splitbus_schemas.limits import MAX_TERM
from splitbus_schemas.messages import Lease
from splitbus_schemas.terms import round_of, term_in

RENEWALS: Final = 4
"""So often a lease is said while one lasts: three may be lost or late."""

GRACE_S: Final = 0.25
"""After a connect, what is retained arrives; who claimed without it would claim in vain."""

CAUTION: Final = 0.9
"""A holder counts on this part of the lease, for no two clocks run alike."""

MAX_LEAP: Final = 10_000
"""Rounds for which a node's word is believed at a time: one that lies must not use them up."""

MAX_ROUND: Final = round_of(MAX_TERM) - 1

REPEAT_S: Final = 0.05
"""A lease is not said faster than this, whatever is written over it."""

MAX_SAID: Final = 64
"""Leases that may be on their way; a broker that does not let us read them gives none back."""

JOIN_S: Final = 10.0
"""So long a bridge has to come up before a gateway leads that has never heard of another one."""

MAX_BOOTS: Final = 16
"""Runs of gateways whose renewals are told from old ones."""


@dataclass(frozen=True, slots=True)
class Saying:
    """A lease to be published. Renewals are not retained: one that was held up must not stand over a newer lease."""

    lease: Lease
    retain: bool


@dataclass(frozen=True, slots=True)
class _Claim:
    term: int
    serial: int
    at: float


class Candidate:
    """One run of one gateway. What `step`, `hear` and `release` give is to be published, in order."""

    def __init__(
        self,
        node: str,
        boot: str,
        *,
        seconds: float,
        floor: int = 0,
        side: str | None = None,
        bridge: Bridge | None = None,
        led_beyond: bool = False,
    ) -> None:
        self.node, self.boot, self.seconds, self.side = node, boot, seconds, side
        self._bridge = bridge
        self.led_beyond = led_beyond
        """Whether the leader heard of last, by an earlier run of ours if need be, is beyond the bridge."""
        self.floor = floor
        """The highest round that was ever heard of."""
        self.stale = 0
        """Leases heard that were over."""
        self._term = 0
        self._claim: _Claim | None = None
        self._known: Lease | None = None
        self._heard_at = self._confirmed_at = float("-inf")
        self._online_at: float | None = None
        self._said: dict[int, float] = {}
        """When each lease of this connection was said that has not come back."""
        self._said_at = self._due = float("-inf")
        self._serial = 0
        self._stands = False
        """Whether our lease is retained, as far as we heard on this connection."""
        self._gone: dict[str, str] = {}
        self._serials: dict[str, int] = {}
        """The last renewal of each other run: what is repeated by somebody else is no news."""
        self._newcomer = True
        self._over = False

    # What is to be known

    def leads(self, now: float) -> bool:
        """Whether we are the one: what we said lately came back, and nobody had said more."""
        return bool(self._term) and self._online_at is not None and now < self.leads_until

    @property
    def leads_until(self) -> float:
        """When our word will be too old, unless more of it comes back."""
        return self._confirmed_at + CAUTION * self.seconds

    @property
    def term(self) -> int:
        """The term that we hold; 0 for none."""
        return self._term

    @property
    def known(self) -> Lease | None:
        """The lease in force as far as we heard, ours or another's."""
        return self._known

    # What happens

    def connected(self, now: float) -> None:
        """The broker takes our messages."""
        self._online_at = now

    def disconnected(self) -> None:
        """Nothing that we said before counts any more; the term stays ours unless somebody takes a higher round."""
        self._online_at = None
        self._claim = None
        self._said.clear()
        self._stands = False
        self._confirmed_at = self._due = float("-inf")

    def note_status(self, node: str, boot: str, *, gone: bool) -> None:
        """The broker, or the gateway itself, says whether that run of it is there."""
        if gone:
            self._gone[node] = boot
        elif self._gone.get(node) == boot:
            del self._gone[node]

    def catch_up(self, term: int) -> None:
        """A node was told of that term and obeys no lower one: a higher one is claimed, whoever held it."""
        if term > self._term:
            self.floor = max(self.floor, min(round_of(term), self.floor + MAX_LEAP, MAX_ROUND - 1))
            self._term, self._known = 0, None

    def hear(self, lease: Lease, now: float) -> list[Saying]:
        """Take a lease as it comes from the broker."""
        if self._over:
            return []
        if lease.boot == self.boot:
            self._hear_own(lease, now)
            return []
        self.floor = max(self.floor, round_of(lease.term))
        if self._term and not self._is_beaten(lease) and (self.leads(now) or not self._is_fresh(lease)):
            return self._defend(lease, now)
        self._term = 0
        lives = self._adopt(lease, now)
        if self._claim and (lives or round_of(lease.term) >= round_of(self._claim.term)):
            self._claim = None
        return []

    def step(self, now: float) -> list[Saying]:
        """Say or claim the lease when it is time."""
        if self._online_at is None or self._over:
            return []
        if self._term:
            return [self._renew(now)] if now >= self._due else []
        if self._claim and now - self._claim.at < self.seconds:
            return []
        return [self._claim_next(now)] if self._is_vacant(now) else []

    def release(self, now: float) -> list[Saying]:
        """Lead no more, and never again: the next may have it at once."""
        said = [Saying(self._say("released", self._term, now), retain=True)] if self.leads(now) else []
        self._term, self._over = 0, True
        return said

    # The rules

    def _hear_own(self, lease: Lease, now: float) -> None:
        said_at = self._said.pop(lease.serial, None)
        if said_at is None:  # of an earlier connection: whoever claimed that round as well may have won
            if not self._term and lease.state == "claimed":
                self._known, self._claim, self._heard_at, self.led_beyond = lease, None, now, False
            return
        if self._claim and lease.serial == self._claim.serial:
            self._term, self._claim = self._claim.term, None
            self.led_beyond = False
            self._due = now + self.seconds / RENEWALS
            self._stands = True
        if lease.term == self._term:
            self._known = lease
            self._confirmed_at = max(self._confirmed_at, said_at)
            self._due = self._due if self._stands else now

    def _is_beaten(self, lease: Lease) -> bool:
        """Whether another's lease ends ours: a higher round, or, after a site was in two, the higher term of both."""
        theirs, ours = round_of(lease.term), round_of(self._term)
        if theirs != ours or lease.state != "held":
            return theirs > ours
        return (lease.term, lease.node, lease.boot) > (self._term, self.node, self.boot)

    def _defend(self, lease: Lease, now: float) -> list[Saying]:
        """Somebody wrote over our lease: a claim that came too late, or a gateway that slept."""
        self.stale += round_of(lease.term) < round_of(self._term)
        self._stands = False
        self._due = min(self._due, max(now, self._said_at + REPEAT_S))
        return self.step(now)

    def _is_fresh(self, lease: Lease) -> bool:
        """Whether somebody says this now: while we slept, whoever did so may have led."""
        return lease.state != "released" and lease.serial > self._serials.get(lease.boot, -1)

    def _adopt(self, lease: Lease, now: float) -> bool:
        """Another's lease; whether it is news. The wait begins anew with each, of whatever round: who says or claims
        one has heard of none that is higher, and may lead until it does.
        """
        known = self._known
        newer = known is None or _is_newer(lease, known)
        lives = self._is_fresh(lease)
        if lives:
            self._serials.pop(lease.boot, None)
            self._serials[lease.boot] = lease.serial
            if len(self._serials) > MAX_BOOTS:
                del self._serials[next(iter(self._serials))]
        if newer:
            self._known = lease
            self.led_beyond = self._bridge is not None and lease.side != self.side
        elif known is not None:
            self.stale += round_of(lease.term) < round_of(known.term)
        if newer or lives:
            self._heard_at = now
        return newer or lives

    def _is_vacant(self, now: float) -> bool:
        online_at, known = self._online_at, self._known
        if online_at is None or now - online_at < GRACE_S:
            return False
        if known is not None and (known.state == "released" or self._gone.get(known.node) == known.boot):
            return True
        if known is not None and self._newcomer and known.node == self.node:
            return True  # our own earlier life, which ended without a word
        if self._bridge is not None and self.led_beyond:
            return self._bridge.is_silent(max(self._heard_at, online_at), now, self.seconds)
        if known is None:
            return self._bridge is None or self._bridge.state(now) == "carries" or now - online_at >= JOIN_S
        return now - max(self._heard_at, online_at) >= self.seconds

    def _renew(self, now: float) -> Saying:
        """Retained as soon as we know that we still are the one, and it does not stand there."""
        retain = not self._stands and self.leads(now)
        self._stands = self._stands or retain
        return Saying(self._say("held", self._term, now), retain)

    def _claim_next(self, now: float) -> Saying:
        self._newcomer = False
        self.floor = min(self.floor + 1, MAX_ROUND)
        said = self._say("claimed", term_in(self.floor, self.boot), now)
        self._claim = _Claim(said.term, said.serial, now)
        return Saying(said, retain=True)

    def _say(self, state: str, term: int, now: float) -> Lease:
        self._serial += 1
        self._said[self._serial] = self._said_at = now
        if len(self._said) > MAX_SAID:
            del self._said[next(iter(self._said))]
        self._due = now + self.seconds / RENEWALS
        facts = {"term": term, "node": self.node, "boot": self.boot, "serial": self._serial, "state": state}
        return Lease.model_validate(facts | {"seconds": self.seconds, "side": self.side})


def _is_newer(lease: Lease, known: Lease) -> bool:
    """Whether a lease takes the place of the one that was known: of one round the first claim counts."""
    theirs, ours = round_of(lease.term), round_of(known.term)
    if theirs != ours:
        return theirs > ours
    if lease.boot == known.boot:
        return lease.serial > known.serial
    return lease.state == "held" and (known.state == "claimed" or lease.term > known.term)
