"""Keeps a node's links measured: takes samples from its traffic, probes what traffic does not measure, publishes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from splitbus_runtime.bus import Bus
from splitbus_runtime.links import STEP, LinkEstimate, Source
from splitbus_runtime.transport import PacketPort, Parcel
from splitbus_schemas.limits import TRAIN_MIN_BYTES
from splitbus_schemas.messages import LinkReport
from splitbus_schemas.packet_types import Echo, Probe
from splitbus_schemas.topics import JOB, LINK, REPLY

IDLE_SECONDS: Final = 2.0
"""A quantity that traffic has not measured for so long is probed."""

SUSPECT_SECONDS: Final = 0.1
"""A link in doubt is probed no sooner after its last probe, half as long again after each that follows, never with one
still out: where frames and probes keep giving each other the lie, probes must not fill the link."""

TRUST_SECONDS: Final = 2 * IDLE_SECONDS
"""A link that nothing has put in doubt for so long is probed at once when something does."""

PROBE_LOST_SECONDS: Final = 4.0
"""A probe without an echo for so long is lost."""

PROBE_BYTES: Final = 4 * TRAIN_MIN_BYTES
"""A train of 16 kB each way: 3 ms at 50 Mbit/s, 130 ms at 1 Mbit/s. A shorter one may pass in a shaper's burst."""

AILING: Final = 2.0
"""A round trip of so many times the best one known, or such a part of the best rate, is a disorder that may pass: it is
looked at more often."""

AILING_SECONDS: Final = 0.5
"""How often; a round trip with probes of a few bytes, a rate with whole ones, where they take no more than a twentieth
of the link."""

AILING_MIN_MBIT: Final = 5.0
MAX_BEST_MBIT: Final = 100.0
"""A train of 16 kB takes 1 ms there: what seems faster still may be the receiver's haste."""

PING_BYTES: Final = 16

MIN_RTT_S: Final = 2e-3
"""Below that everything is one."""

AILING_MEMORY_S: Final = 120.0
"""After so long what is so is taken for granted."""

MAX_LINKS: Final = 256
"""Peers with an estimate: a packet may name any node as the one it came from."""

CROWDED_SECONDS: Final = 10.0
"""Without a better sample for so long, a round trip measured beside traffic must do."""

TELL_CHANGE: Final = 0.15
"""A report is published at the next tick when an estimate moved by this fraction, else every TELL_SECONDS."""

TELL_SECONDS: Final = 2.0

TELL_APART: Final = 0.1
"""Reports of a link follow each other no faster; a step is told with the very sample that shows it."""


_Told: TypeAlias = tuple[LinkReport, float] | None
"""What was told last, and when."""


@dataclass(frozen=True, slots=True)
class _Sent:
    peer: str
    at: float
    crowded: bool


@dataclass(frozen=True, slots=True)
class _Best:
    """What a link was at its best since then."""

    rtt_s: float
    mbit: float
    since: float


class LinkBook:
    """The links of one node. Thread-safe; `tick` is called a few times a second."""

    def __init__(self, port: PacketPort, control: Bus, *, site: str, node: str, boot: str) -> None:
        self._port = port
        self._control = control
        self._site = site
        self._node = node
        self._reply_topic = REPLY.at(site, node=node, boot=boot)
        self._lock = threading.Lock()
        self._links: dict[str, LinkEstimate] = {}
        self._peers: frozenset[str] = frozenset()
        self._probes: dict[int, _Sent] = {}
        self._ids = itertools.count(1)
        self._suspects: set[str] = set()
        self._probed: dict[str, float] = {}
        self._doubted: dict[str, tuple[float, float]] = {}
        """When a peer was probed for a doubt, and how long the next doubt waits."""
        self.crowded: Callable[[], bool] = lambda: False
        """Whether traffic of ours is under way: a round trip beside it would be a queue's, not the link's."""
        self._told: dict[str, _Told] = {}
        self._best: dict[str, _Best] = {}

    def set_peers(self, peers: frozenset[str]) -> None:
        """Whom to keep measured."""
        with self._lock:
            self._peers = peers

    def link(self, peer: str) -> LinkEstimate:
        """What is known of the link to `peer`."""
        with self._lock:
            return self._links.get(peer, LinkEstimate())

    def note_rtt(self, peer: str, seconds: float, now: float, source: Source = "traffic") -> None:
        """A round trip, time at the peer taken off."""
        self._learn(peer, lambda link: link.with_rtt(seconds, now, source), now)

    def note_up(
        self,
        peer: str,
        size: int,
        seconds: float,
        now: float,
        source: Source = "traffic",
        whole_s: float | None = None,
    ) -> None:
        """A train that arrived at the peer; `whole_s` when its way there and back was its own."""
        self._learn(peer, lambda link: link.with_up(size, seconds, now, source, whole_s), now)

    def note_down(self, peer: str, size: int, seconds: float, now: float, source: Source = "traffic") -> None:
        """A train that arrived here."""
        self._learn(peer, lambda link: link.with_down(size, seconds, now, source), now)

    def note_outcome(self, peer: str, *, lost: bool) -> None:
        """Whether a message to the peer was answered."""
        self._learn(peer, lambda link: link.with_outcome(lost=lost))

    def suspect(self, peer: str) -> None:
        """Something took longer than it should have: probe at the next tick."""
        self._suspects.add(peer)

    def measure_anew(self, peer: str, now: float) -> None:
        """The peer is well again: what comes next and is better stands alone, and is probed for at once."""
        with self._lock:
            if peer in self._links:
                self._links[peer] = self._links[peer].doubted()
            self._doubted.pop(peer, None)
            self._probed.pop(peer, None)
            self._suspects.add(peer)
        for probe_id in [probe_id for probe_id, sent in list(self._probes.items()) if sent.peer == peer]:
            self._probes.pop(probe_id, None)  # sent to what the peer was
        self._probe_doubtful(now)

    def suspect_all(self) -> None:
        """The network may be another one: probe every peer."""
        with self._lock:
            self._suspects.update(self._peers)

    def tick(self, now: float) -> None:
        """Give up lost probes, probe idle links, publish what changed."""
        for probe_id, sent in list(self._probes.items()):
            if now - sent.at > PROBE_LOST_SECONDS and self._probes.pop(probe_id, None) is not None:
                self.note_outcome(sent.peer, lost=True)
        self._probe_doubtful(now)
        for peer, since in self._quiet(now):
            if since >= IDLE_SECONDS and self.link(peer).oldest_age(now) > IDLE_SECONDS:
                self._probe(peer, now)
            elif since >= AILING_SECONDS and (size := self._ailing(peer, now)):
                self._probe(peer, now, size)
        for peer in list(self._links):
            self._tell(peer, now, _due)

    def answer(self, probe: Probe, parcel: Parcel, now: float) -> None:
        """Echo a probe that came to us."""
        held_us = int((now - parcel.at) * 1e6)
        pad = bytes(min(probe.back, PROBE_BYTES))
        echo = Echo(probe.id, self._node, held_us, parcel.train_bytes, int(parcel.train_s * 1e6), pad)
        self._port.send(probe.reply_to, echo, train=True)

    def take_echo(self, echo: Echo, parcel: Parcel) -> None:
        """Learn from the echo of a probe of ours."""
        sent = self._probes.pop(echo.id, None)
        if sent is None or sent.peer != echo.node:
            return
        up_s, down_s = echo.train_us / 1e6, parcel.train_s
        whole_s = parcel.at - sent.at - down_s - echo.held_us / 1e6
        self.note_outcome(sent.peer, lost=False)
        self.note_up(sent.peer, echo.train_bytes, up_s, parcel.at, "probe", None if sent.crowded else whole_s)
        self.note_down(sent.peer, parcel.train_bytes, down_s, parcel.at, "probe")
        rtt, known = max(whole_s - up_s, 0.0), self.link(sent.peer).rtt_s
        falls = known.estimate is not None and rtt * AILING < known.estimate  # the crowd can only have made it longer
        if falls:
            self.suspect(sent.peer)
        if falls or not sent.crowded or parcel.at - known.newest > CROWDED_SECONDS:
            self.note_rtt(sent.peer, rtt, parcel.at, "probe")

    def _ailing(self, peer: str, now: float) -> int:
        """With how many bytes to look whether the link is well again; 0 when it is what it has been of late."""
        link = self.link(peer)
        rtt, rate = link.rtt_s.estimate, link.up_mbit.estimate
        if rtt is None or rate is None:
            return 0
        best = self._best.get(peer)
        if best is None or now - best.since > AILING_MEMORY_S:
            best = _Best(rtt, rate, now)
        self._best[peer] = best = _Best(min(rtt, best.rtt_s), max(min(rate, MAX_BEST_MBIT), best.mbit), best.since)
        if AILING_MIN_MBIT < rate < best.mbit / AILING:
            return PROBE_BYTES
        return PING_BYTES if rtt > AILING * max(best.rtt_s, MIN_RTT_S) else 0

    def _quiet(self, now: float) -> list[tuple[str, float]]:
        """Peers without a probe under way, and how long ago the last one was."""
        outstanding = {sent.peer for sent in list(self._probes.values())}
        return [(peer, now - self._probed.get(peer, float("-inf"))) for peer in sorted(self._peers - outstanding)]

    def _probe_doubtful(self, now: float) -> None:
        for peer, since in self._quiet(now):
            doubted_at, patience = self._doubted.get(peer, (float("-inf"), 0.0))
            patience = SUSPECT_SECONDS if now - doubted_at > TRUST_SECONDS else patience
            if peer in self._suspects and since >= patience:
                self._suspects.discard(peer)
                self._doubted[peer] = now, min(1.5 * patience, IDLE_SECONDS)
                self._probe(peer, now)

    def _probe(self, peer: str, now: float, size: int = PROBE_BYTES) -> None:
        probe_id = next(self._ids)
        probe = Probe(probe_id, self._node, self._reply_topic, size, bytes(size))
        self._probed[peer] = now
        self._probes[probe_id] = _Sent(peer, now, self.crowded())
        if not self._port.send(JOB.at(self._site, node=peer, device=self._node), probe, train=True, expiry_s=5):
            self._probes.pop(probe_id, None)

    def _learn(self, peer: str, change: Callable[[LinkEstimate], LinkEstimate], now: float | None = None) -> None:
        """Keep what is known now. When a rate is off, all our links are in doubt: they share our way to the broker."""
        with self._lock:
            before = self._links.get(peer, LinkEstimate())
            if peer not in self._links and len(self._links) >= MAX_LINKS:
                return
            link = self._links[peer] = change(before)
            if link.up_mbit is not before.up_mbit and before.up_mbit.is_off(link.up_mbit.values[-1]):
                self._suspects |= {peer, *self._peers}
        if now is not None:
            self._tell(peer, now, _stepped)
            self._probe_doubtful(now)

    def _tell(self, peer: str, now: float, due: Callable[[_Told, LinkReport, float], bool]) -> None:
        with self._lock:
            report = self._links[peer].report(self._node, peer, now)
            if not due(self._told.get(peer), report, now):
                return
            self._told[peer] = (report, now)
        self._control.publish(LINK.at(self._site, node=self._node, peer=peer), report.to_json(), retain=True)


def _due(told: _Told, after: LinkReport, now: float) -> bool:
    """At a tick: whether the estimate moved, or has not been told for long."""
    if told is None:
        return True
    before, elapsed = told[0], now - told[1]
    if before.samples == after.samples and before.loss == after.loss:
        return elapsed > 5 * TELL_SECONDS
    moved = any(_moved(old, new) for old, new, _ in _beside(before, after)) or before.loss != after.loss
    return elapsed > (TELL_APART if moved else TELL_SECONDS)


def _stepped(told: _Told, after: LinkReport, now: float) -> bool:
    """At a sample: whether the estimate is another one altogether."""
    if told is None or now - told[1] < TELL_APART:
        return False
    return any(_apart(old, new, trifle) for old, new, trifle in _beside(told[0], after))


def _beside(before: LinkReport, after: LinkReport) -> tuple[tuple[float | None, float | None, float], ...]:
    """Each figure before and after, and what is a trifle of it."""
    return (
        (before.rtt_ms, after.rtt_ms, 1.0),
        (before.up_mbit, after.up_mbit, 0.05),
        (before.down_mbit, after.down_mbit, 0.05),
    )


def _moved(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is not new
    return abs(new - old) > TELL_CHANGE * max(old, 0.1)


def _apart(old: float | None, new: float | None, trifle: float) -> bool:
    return old is not None and new is not None and max(old, new) + trifle > STEP * (min(old, new) + trifle)
