"""The gateway's own change logic along a trace, in simulated time: link book, world and stream as in a running site.

Nothing waits and nothing is sent: a calendar holds what happens when. Durations come from the trace and from prices.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from splitbus_gateway.atlas import Ends, Spot, moved
from splitbus_gateway.drafts import split_of
from splitbus_gateway.epochs import Epochs
from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.offline import BOOT, tell
from splitbus_gateway.pricing import Priced, price
from splitbus_gateway.problem import LinkFacts, Problem, Split
from splitbus_gateway.state import StreamKey, StreamView, World
from splitbus_gateway.stream import Stream, StreamSettings
from splitbus_gateway.trace import Moment, Trace
from splitbus_runtime.bus import Delivery, MemoryBroker, UserProperties
from splitbus_runtime.linkbook import LinkBook
from splitbus_runtime.transport import PacketPort, Parcel
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.errors import ModelError, UnsatisfiableError
from splitbus_schemas.limits import TRAIN_MIN_BYTES
from splitbus_schemas.packet_types import Echo, Packet, Probe

SITE: Final = "replay"
WARM_S: Final = 6.0
"""Before the trace begins, the link is as in its first moment: probes find it, the first plan comes."""

LOAD_S: Final = 0.2
"""What a node takes to get a slice ready, and a device to switch to a plan that has come."""

TICK_S: Final = 0.25
DEBOUNCE_S: Final = 0.1
STEP_S: Final = 1.0
"""As the agents and the controller have them."""

WINDOW: Final = 4
"""Frames under way at once: of what the link cannot carry nothing is learned."""

Act: TypeAlias = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Change:
    """From `at` on the device runs `split`; `why` is the gateway's reason."""

    at: float
    split: Split
    why: str


Truth: TypeAlias = Callable[[float], Problem]
"""The question with the links as they are at a time."""


def truth_of(problem: Problem, link: Ends, trace: Trace) -> Truth:
    """The question along a trace, which moves the device's links as a map does."""
    known: dict[Moment, Problem] = {}

    def at(seconds: float) -> Problem:
        moment = trace.at(seconds)
        if moment not in known:
            known[moment] = moved(problem, link, Spot(moment.up_mbit, moment.rtt_ms), moment.down_mbit)
        return known[moment]

    return at


@dataclass
class _Calendar:
    """What happens when; equal times in the order of entry."""

    now: float
    _due: list[tuple[float, int, Act]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def add(self, at: float, act: Act) -> None:
        heapq.heappush(self._due, (max(at, self.now), next(self._numbers), act))

    def run(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, _, act = heapq.heappop(self._due)
            act()
        self.now = until


class _Names:
    """Slices by name alone: nothing is cut in a rehearsal."""

    def slice_id(self, model: str, first: int, last: int, codec_in: str, codec_out: str) -> str | None:
        nodes = CODECS[codec_in].nodes, CODECS[codec_out].nodes
        if first == last and not any(nodes):
            return None
        return hashlib.sha256(f"{model} {first} {last} {nodes}".encode()).hexdigest()

    def profile_request(self, model: str) -> m.ProfileRequest:
        raise ModelError(f"model {model} is not profiled in a replay: its profiles are given")


class _Counted(Epochs):
    """Epochs that no file keeps."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def next(self, stream: StreamKey, floor: int) -> int:  # noqa: ARG002 - the stream is one, and nothing came before
        return next(self._count)


class _Wire(PacketPort):
    """Carries probes as the truth has it, and hands their echoes to the book."""

    def __init__(self, broker: MemoryBroker, calendar: _Calendar, truth: Truth, device: str) -> None:
        super().__init__(broker.connect(), lambda _topic, _error: None)
        self._calendar, self._truth, self._device = calendar, truth, device
        self.take_echo: Callable[[Echo, Parcel], None] = lambda _echo, _parcel: None

    def send(
        self,
        topic: str,
        packet: Packet,
        *,
        train: bool = False,  # noqa: ARG002 - the port's own; every probe is a train here
        user: UserProperties = (),  # noqa: ARG002 - the port's own
        expiry_s: int | None = None,  # noqa: ARG002 - the port's own
    ) -> int:
        peer = (topics.JOB.match(topic) or {}).get("node", "")
        link = self._truth(self._calendar.now).links.get((self._device, peer))
        if not isinstance(packet, Probe) or link is None:
            return 0
        size, back = len(packet.pad), max(packet.back, TRAIN_MIN_BYTES)
        up_s, down_s = _seconds(size, link.up_mbit), _seconds(back, link.down_mbit or link.up_mbit)
        at = self._calendar.now + (link.rtt_ms or 0.0) / 1e3 + up_s + down_s
        echo = Echo(packet.id, peer, 0, size, round(up_s * 1e6), b"")
        parcel = Parcel(topic, echo, at, back, back, down_s)
        self._calendar.add(at, lambda: self.take_echo(echo, parcel))
        return size


def _seconds(size: float, mbit: float | None) -> float:
    return size * 8e-6 / (mbit or 1.0)


class Rehearsal:
    """A device, its workers and the gateway's stream for them, along a trace; `changes` fills as it runs."""

    def __init__(
        self, world: World, model: ModelFacts, truth: Truth, device: str, settings: StreamSettings, begin: float
    ) -> None:
        self.changes: list[Change] = []
        self._world, self._model, self._truth, self._device = world, model, truth, device
        self._calendar = _Calendar(begin - WARM_S)
        self._stream = Stream(device, model, _Names(), _Counted(), settings)
        self._split = Split((device,))
        self._held: dict[str, frozenset[str]] = {}
        self._under_way = 0
        self._step_due = False
        broker = MemoryBroker()
        wire = _Wire(broker, self._calendar, truth, device)
        self._book = LinkBook(wire, broker.connect(), site=SITE, node=device, boot=BOOT)
        self._book.crowded = lambda: self._under_way > 0
        wire.take_echo = self._book.take_echo
        first = truth(begin)
        self._workers = [worker.node for worker in first.workers]
        self._boots = {name: view.boot or BOOT for name, view in world.nodes.items()}
        self._loads = {name: (view.busy, view.queued) for name, view in world.nodes.items()}
        before = world.streams.get((device, model.key)) or StreamView()
        world.streams[device, model.key] = StreamView(measured=dict(before.measured))
        self._book.set_peers(frozenset(self._workers) & {receiver for _, receiver in first.links})
        broker.connect().subscribe(topics.LINK.at(SITE, node="+", peer="+"), self._hear)
        for receiver in self._workers:
            world.links.forget(device, receiver)
            world.links.forget(receiver, device)
        self._tick()
        self._beat()

    def run(self, until: float) -> None:
        """Let time pass."""
        self._calendar.run(until)

    @property
    def split(self) -> Split:
        """What the device runs now."""
        return self._split

    def frame(self, way: Priced) -> None:
        """A frame goes along `way` now: what it shows of the first link is learned when it is back."""
        if not way.split.cuts or self._under_way >= WINDOW:
            return
        alone = self._under_way == 0
        self._under_way += 1
        peer, now = way.split.nodes[1], self._calendar.now
        link = self._truth(now).links[self._device, peer]
        sent = next(step.bytes or 0 for step in way.steps if step.what == "link")
        self._calendar.add(now + way.ms / 1e3, lambda: self._back(way, link, sent, alone=alone))

    def _back(self, way: Priced, link: LinkFacts, sent: int, *, alone: bool) -> None:
        self._under_way -= 1
        peer, now, direct = way.split.nodes[1], self._calendar.now, len(way.split.nodes) == 2
        self._book.note_outcome(peer, lost=False)
        answer = way.steps[-1].bytes or 0
        if sent >= TRAIN_MIN_BYTES:
            self._book.note_up(peer, sent, _seconds(sent, link.up_mbit), now)
        if direct and answer >= TRAIN_MIN_BYTES:
            self._book.note_down(peer, answer, _seconds(answer, link.down_mbit or link.up_mbit), now)
        if direct and alone and sent >= TRAIN_MIN_BYTES:
            self._book.note_rtt(peer, (link.rtt_ms or 0.0) / 1e3, now)

    # What repeats

    def _tick(self) -> None:
        self._book.tick(self._calendar.now)
        self._calendar.add(self._calendar.now + TICK_S, self._tick)

    def _beat(self) -> None:
        """The workers say that they live, and their own links stay as they were given."""
        now = self._calendar.now
        for name in self._workers:
            busy, queued = self._loads[name]
            stats = m.NodeStats(node=name, boot=self._boots[name], uptime_s=1.0, busy=busy, queued=round(queued))
            tell(self._world, topics.STATS, stats, now, node=name)
        for (sender, receiver), link in self._truth(now).links.items():
            if self._device not in (sender, receiver):
                report = m.LinkReport(
                    node=sender, peer=receiver, rtt_ms=link.rtt_ms, up_mbit=link.up_mbit, down_mbit=link.down_mbit,
                    samples=1, confidence=1.0,
                )  # fmt: skip
                tell(self._world, topics.LINK, report, now, node=sender, peer=receiver)
        self._step()
        self._calendar.add(now + STEP_S, self._beat)

    # The gateway

    def _hear(self, delivery: Delivery) -> None:
        kind, fields = topics.parse_topic(delivery.topic)
        self._world.apply(kind, fields, delivery.payload, self._calendar.now)
        if not self._step_due:
            self._step_due = True
            self._calendar.add(self._calendar.now + DEBOUNCE_S, self._step)

    def _step(self) -> None:
        self._step_due = False
        now = self._calendar.now
        turn = self._stream.step(self._world, now, "")
        self._order(self._stream.wanted(now))
        if turn.plan is not None:
            made = turn.plan
            self._world.note_plan((self._device, self._model.key), made)
            self._calendar.add(now + LOAD_S, lambda: self._follow(made))

    def _order(self, wanted: Mapping[str, frozenset[str]]) -> None:
        for name in self._workers:
            slices = wanted.get(name, frozenset())
            if slices != self._held.get(name):
                self._held[name] = slices
                self._calendar.add(self._calendar.now + LOAD_S, partial(self._ready, name, slices))

    def _ready(self, name: str, slices: frozenset[str]) -> None:
        state = m.SliceState(node=name, boot=self._boots[name], ready=sorted(slices))
        tell(self._world, topics.SLICES, state, self._calendar.now, node=name)
        self._step()

    def _follow(self, made: m.Plan) -> None:
        split = split_of(made)
        if split != self._split or not self.changes:
            self._split = split
            self.changes.append(Change(self._calendar.now, split, made.reason))
        state = m.PlanState(node=self._device, boot=BOOT, plan=made.plan, epoch=made.epoch, state="active")
        tell(self._world, topics.PLAN_STATE, state, self._calendar.now, node=self._device, model=self._model.key)


def price_or_local(problem: Problem, split: Split) -> Priced:
    """The way's price; the device's own when it cannot be run."""
    try:
        return price(problem, split)
    except UnsatisfiableError:
        return price(problem, Split((problem.device.node,)))
