"""Holds the site's lease over the bus: one thread that hears, says and claims it, and tells whether we lead."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from splitbus_gateway.alerts import Alerts
from splitbus_gateway.bridge_watch import BridgeWatch
from splitbus_gateway.config import LeaseSettings
from splitbus_gateway.lease import Candidate, Saying
from splitbus_gateway.signing import Signer
from splitbus_runtime.bus import Bus, Delivery
from splitbus_runtime.tally_file import read_tally, write_tally
from splitbus_schemas.errors import DecodeError, SignatureError
from splitbus_schemas.messages import Lease, NodeStatus
from splitbus_schemas.topics import LEASE

log = logging.getLogger(__name__)

TICK_S: Final = 0.05
"""A lease is claimed so late at most."""

GONE_STATES: Final = ("lost", "stopping")

CATCH_UP_S: Final = 60.0
"""Nodes are believed so often that there was a higher term."""


@dataclass(frozen=True, slots=True)
class Mandate:
    """That we lead: in which term, and since which word of ours, which no connection outlives."""

    term: int
    spell: int


@dataclass(frozen=True, slots=True)
class _Status:
    node: str
    boot: str
    gone: bool


@dataclass(frozen=True, slots=True)
class _Claimed:
    who: str
    term: int


_Event: TypeAlias = Delivery | _Status | _Claimed | bool


class Leadership:
    """Our part in who leads a site. `file` remembers the highest round; `alive` says whether the gateway works at all.

    `changed` is called, on the thread of this, at every change of `mandate` and `leader`.
    """

    def __init__(
        self,
        bus: Bus,
        signer: Signer,
        alerts: Alerts,
        *,
        site: str,
        node: str,
        boot: str,
        settings: LeaseSettings,
        file: Path,
        alive: Callable[[], bool] = lambda: True,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._bus, self._signer, self._alerts = bus, signer, alerts
        self._file, self._alive, self._changed = file, alive, changed
        self._topic = LEASE.at(site)
        self._watch = _watch(settings, alerts, site)
        self._candidate = _candidate(settings, node, boot, self._watch, read_tally(file))
        self._remembered_beyond = self._candidate.led_beyond
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._spell = 0
        self._word: tuple[int, int, float] = (0, 0, 0.0)
        """Term, spell, and until when: replaced whole, read by other threads."""
        self._led_by: Lease | None = None
        self._stale = 0
        self._caught_up_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="splitbus-lease", daemon=True)

    # What others ask

    @property
    def mandate(self) -> Mandate | None:
        """That we lead now."""
        term, spell, until = self._word
        return Mandate(term, spell) if term and clock() < until else None

    def leads(self) -> bool:
        """Whether we lead now."""
        return self.mandate is not None

    @property
    def leader(self) -> Lease | None:
        """The lease in force as far as we heard."""
        return self._led_by

    @property
    def trouble(self) -> str:
        """What keeps us from the other side of the site, in a few words; empty when nothing does."""
        return self._watch.trouble if self._watch else ""

    # What happens

    def start(self) -> None:
        """Take part."""
        self._thread.start()
        self._bus.subscribe(self._topic, self._events.put, qos=LEASE.qos)
        if self._watch:
            self._bus.subscribe(self._watch.topics, self._events.put, qos=1)
        self._bus.watch(self._events.put)

    def stop(self) -> None:
        """Lead no more: who waits may go on at once."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def note_status(self, payload: bytes) -> None:
        """A node's status; any thread."""
        with contextlib.suppress(DecodeError):
            status = NodeStatus.from_json(payload)
            if status.tier == "gateway":
                self._events.put(_Status(status.node, status.boot, status.state in GONE_STATES))

    def catch_up(self, who: str, term: int) -> None:
        """`who` was told of that term; the broker, or we, have forgotten it. Any thread."""
        self._events.put(_Claimed(who, term))

    # The thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Empty):
                self._take(self._events.get(timeout=TICK_S))
                while True:
                    self._take(self._events.get_nowait())
            now = clock()
            if self._alive():
                self._publish(self._candidate.step(now))
            self._look_beyond(now)
            self._look(now)
        self._word = (0, 0, 0.0)
        self._publish(self._candidate.release(clock()))

    def _take(self, event: _Event) -> None:
        if isinstance(event, Delivery):
            if event.topic == self._topic:
                self._hear(event)
            elif self._watch:
                self._watch.take(event, clock())
        elif isinstance(event, _Status):
            self._candidate.note_status(event.node, event.boot, gone=event.gone)
        elif isinstance(event, _Claimed):
            self._obey(event)
        elif event:
            self._candidate.connected(clock())
        else:
            self._candidate.disconnected()

    def _hear(self, delivery: Delivery) -> None:
        if not delivery.payload:
            return  # somebody cleared the topic: our next word stands there again
        try:
            lease = Lease.from_json(self._signer.open(self._topic, delivery.payload))
        except SignatureError as error:
            self._alerts(error.counter, f"{error}; all gateways of a site need the same signing.key", self._topic)
        except DecodeError as error:
            self._alerts(error.counter, str(error), self._topic)
        else:
            self._check_twin(lease, retained=delivery.retain)
            self._publish(self._candidate.hear(lease, clock()))

    def _check_twin(self, lease: Lease, *, retained: bool) -> None:
        own = self._candidate
        if lease.node == own.node and lease.boot != own.boot and lease.state == "held" and not retained:
            self._alerts("twin_gateways", f"another gateway runs as {own.node}: set another `node` for one of them")

    def _obey(self, claimed: _Claimed) -> None:
        now, term = clock(), self._candidate.term
        if not term or claimed.term <= term or now - self._caught_up_at < CATCH_UP_S:
            return
        self._caught_up_at = now
        text = f"{claimed.who} was given orders of term {claimed.term}, ours is {term}: a higher one is claimed"
        self._alerts("terms_lost", text)
        self._candidate.catch_up(claimed.term)

    def _publish(self, sayings: Iterable[Saying]) -> None:
        for saying in sayings:
            if saying.lease.state == "claimed":
                self._remember()
            payload = self._signer.seal(self._topic, saying.lease)
            self._bus.publish(self._topic, payload, qos=LEASE.qos, retain=saying.retain, keep=False)

    def _remember(self) -> None:
        """Before a round is claimed: no later run of ours claims it again."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beyond = {"led_beyond": 1} if self._candidate.led_beyond else {}
            write_tally(self._file, {"round": self._candidate.floor, **beyond})
        except OSError as error:
            self._alerts("lease_unwritten", f"{self._file} cannot be written: {error.strerror}; the broker remembers")

    def _look_beyond(self, now: float) -> None:
        """Remember on which side the leader is; when the bridge is back, a leader says everything again."""
        if self._watch is None:
            return
        if self._candidate.led_beyond != self._remembered_beyond:
            self._remembered_beyond = self._candidate.led_beyond
            self._remember()
        before = self._watch.trouble
        if self._watch.look(now, _what_follows(self._candidate)):
            self._spell += 1
        if self._watch.trouble != before:
            self._changed()

    def _look(self, now: float) -> None:
        """Tell others what has become of us."""
        candidate, before = self._candidate, self._word
        led_by, self._led_by = self._led_by, candidate.known
        leads = candidate.leads(now)
        if leads and not before[0]:
            self._spell += 1
            log.info("we lead in term %d", candidate.term)
        self._word = (candidate.term, self._spell, candidate.leads_until) if leads else (0, 0, 0.0)
        if before[0] and not leads:
            self._tell_loss(before[0])
        if candidate.stale > self._stale:
            self._stale = candidate.stale
            self._alerts("stale_leases", "a gateway that leads no more said its lease: it slept, or was cut off")
        same_leader = (led_by and led_by.boot) == (self._led_by and self._led_by.boot)
        if bool(before[0]) != leads or before[0] != self._word[0] or not same_leader:
            self._changed()

    def _tell_loss(self, term: int) -> None:
        known = self._candidate.known
        if known is not None and known.boot != self._candidate.boot:
            self._alerts("lease_lost", f"{known.node} leads in term {known.term}, ours was {term}: we stand by")
        else:
            log.warning("our lease of term %d is too old: nothing of it came back from the broker in time", term)


def _watch(settings: LeaseSettings, alerts: Alerts, site: str) -> BridgeWatch | None:
    return BridgeWatch(alerts, site=site, name=settings.bridge, now=clock()) if settings.bridge else None


def _candidate(
    settings: LeaseSettings, node: str, boot: str, watch: BridgeWatch | None, kept: Mapping[str, int]
) -> Candidate:
    waits = watch is not None and settings.when_cut == "wait"
    return Candidate(
        node,
        boot,
        seconds=settings.seconds,
        floor=kept.get("round", 0),
        side=settings.side,
        bridge=watch.bridge if watch and waits else None,
        led_beyond=waits and bool(kept.get("led_beyond")),
    )


def _what_follows(candidate: Candidate) -> str:
    """From a cut of the bridge, for this side."""
    known = candidate.known
    if candidate.term:
        return "we lead on; nodes beyond it keep the plans they have"
    if candidate.led_beyond:
        return (
            f"{known.node if known else 'a gateway'} beyond it may still lead: plans stay as they are until it carries"
        )
    return "we stand by as before"


def clock() -> float:
    """Seconds, also those in which the machine sleeps."""
    return time.clock_gettime(_CLOCK)


_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
