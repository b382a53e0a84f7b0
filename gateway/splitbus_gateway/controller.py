"""Keeps every device's plan right: applies what the bus says to the world, steps the streams, publishes orders.

Runs on one thread, its caller's: `handle` each message, `step` often; both take the time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, Protocol

from splitbus_gateway.alerts import Alerts
from splitbus_gateway.clock import SteadyClock
from splitbus_gateway.drafts import Slicer
from splitbus_gateway.epochs import Epochs
from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.pacing import note_speeds
from splitbus_gateway.profiling import Turns
from splitbus_gateway.rollout import union
from splitbus_gateway.signing import Signer
from splitbus_gateway.state import WATCHED, NodeView, StreamKey, World
from splitbus_gateway.stream import Stream, StreamSettings
from splitbus_gateway.succession import highest_term, kept_slices, renewed, standing, strangers
from splitbus_gateway.switching import SliceSize
from splitbus_gateway.telling import Turn
from splitbus_runtime.bus import Bus, Delivery
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.errors import DecodeError, SignatureError, SplitbusError
from splitbus_schemas.terms import term_of

DEBOUNCE_S: Final = 0.1
"""Reports come in groups; a plan made of half of them would be changed at once."""

TICK_S: Final = 1.0
"""Ages, load and frames' sizes move without an event that would be worth a plan of its own."""

SETTLE_S: Final = 0.5
"""After the start the retained messages arrive; orders made of half of them would make workers drop slices."""

FORGET_S: Final = 5.0
"""So long after a connect, what the broker retains has arrived: what has not is retained no more."""

_QUIET: Final = {topics.STATS.name, topics.STREAM.name, topics.PLAN.name}
"""These come every second, or from us, and wait for the tick."""

_ECHOED: Final = (topics.WORK, topics.PEERS)
"""Of these it only matters whether they stand there as we said them."""

_URGENT: Final = {topics.SLICES.name, topics.STATUS.name}
"""Somebody got ready, or was lost: these come alone and wait for nothing."""


class Catalogue(Slicer, Protocol):
    """The registered models and their slices."""

    def models(self) -> Mapping[str, ModelFacts]:
        """The models that can be planned, by their key in topics."""

    def slice_size(self, slice_id: str) -> SliceSize | None:
        """What a node reads to have a slice; None when it was not made here."""


class Controller:
    """All streams of a site."""

    def __init__(
        self,
        bus: Bus,
        catalogue: Catalogue,
        epochs: Epochs,
        alerts: Alerts,
        *,
        site: str,
        settings: StreamSettings | None = None,
        timestamp: Callable[[], str],
        now: float,
        settle_s: float = SETTLE_S,
        signer: Signer | None = None,
    ) -> None:
        self.world = World()
        self.alerts = alerts
        self._signer = signer or Signer()
        self._bus, self._catalogue, self._epochs = bus, catalogue, epochs
        self._site, self._settings, self._timestamp = site, settings or StreamSettings(), timestamp
        self._streams: dict[StreamKey, Stream] = {}
        self._unknown: set[StreamKey] = set()
        self._sent: dict[str, bytes] = {}
        self._turns = Turns()
        self._clock = SteadyClock(now)
        self._due = now + settle_s
        self._asleep_until = self._due
        self._session = 0
        """Connections to the broker so far; counted on its thread, read on ours."""
        self._forget_at: dict[int, float] = {}
        self._term = 0
        self._to_renew = False
        self._kept: frozenset[StreamKey] = frozenset()
        """Streams of models that another gateway has and we never had: they go on as they are."""
        bus.watch(self.note_connection)

    @property
    def filters(self) -> list[str]:
        """The MQTT filters of everything that `handle` understands."""
        kinds = (*WATCHED, *_ECHOED)
        return [kind.at(self._site, **dict.fromkeys(kind.fields, "+")) for kind in kinds]

    @property
    def plans(self) -> dict[StreamKey, m.Plan]:
        """The running plans."""
        return {key: stream.running for key, stream in self._streams.items() if stream.running}

    def note_connection(self, connected: bool) -> None:  # noqa: FBT001 - the Bus's signature
        """The connection came or went; any thread."""
        self._session += connected

    def begin(self, term: int, had: Collection[str] = ()) -> None:
        """Lead in a new term: whatever stands is said anew under it, with the next step.

        Plans for models that are not registered here, nor among those that we `had` by key, are left as they are.
        """
        self._term, self._to_renew = term, True
        self._epochs.begin(term)
        self._streams.clear()
        self._sent.clear()
        self._kept = strangers(self.world, {*self._catalogue.models(), *had})
        self._due = self._asleep_until

    def resume(self) -> None:
        """Lead in the same term over a new connection: what the broker may have forgotten is said again."""
        self._sent.clear()
        for stream in self._streams.values():
            stream.say_again()
        self._due = self._asleep_until

    @property
    def told(self) -> tuple[str, int]:
        """Who was given orders of the highest term, and which."""
        active = {key: view.state.epoch for key, view in self.world.streams.items() if view.state}
        return highest_term(self.world, {key: term_of(epoch) for key, epoch in active.items()})

    def handle(self, delivery: Delivery, now: float) -> None:
        """Take a message from the bus; what breaks the contract is counted and told, and changes nothing."""
        now = self._read(now)
        if self._sent.get(delivery.topic, delivery.payload) != delivery.payload:
            del self._sent[delivery.topic]  # somebody wrote over what we said: it is said again
            self._touch(now, DEBOUNCE_S)
        loads = self.world.load_changes
        try:
            kind, fields = topics.parse_topic(delivery.topic)
            payload = delivery.payload
            if kind in _ECHOED:
                return
            if kind is topics.PLAN:
                payload = self._signer.open(delivery.topic, payload)
            self.world.apply(kind, fields, payload, now, retained=delivery.retain, session=self._session)
        except SignatureError as error:
            self.alerts(error.counter, str(error), delivery.topic)
            self._oust(delivery.topic, (fields["node"], fields["model"]), now)
        except DecodeError as error:
            self.alerts(error.counter, str(error), delivery.topic)
        else:
            if kind.name not in _QUIET or self.world.load_changes > loads:
                self._touch(now, 0.0 if kind.name in _URGENT else DEBOUNCE_S)

    def _oust(self, topic: str, key: StreamKey, now: float) -> None:
        """A plan that is not ours stands there: our own takes its place, or nothing does."""
        stream = self._streams.get(key)
        if stream is not None and stream.running:
            self._touch(now, 0.0)
        else:
            self._bus.publish(topic, b"", qos=topics.PLAN.qos, retain=True)

    def touch(self, now: float) -> None:
        """Something changed: step soon."""
        self._touch(self._read(now), DEBOUNCE_S)

    def _touch(self, now: float, patience_s: float) -> None:
        self._due = max(self._asleep_until, min(self._due, now + patience_s))

    def due_in(self, now: float) -> float:
        """Seconds until `step` has something to do."""
        return max(0.0, self._due - self._read(now))

    def _read(self, now: float) -> float:
        """Our own time, in which the caller's clock does not jump."""
        steady = self._clock.read(now)
        if self._clock.jumped:
            self.alerts("clock_jumps", "the clock jumped: plans stay, and waiting goes on as if it had not")
        return steady

    def step(self, now: float) -> None:
        """Plan, and publish what follows, when it is time."""
        now = self._read(now)
        if now < self._due:
            return
        self._due = now + TICK_S
        if self._to_renew:
            self._renew_plans()
        self._forget_pins(now)
        self._match_streams()
        for key, stream in sorted(self._streams.items()):
            self._step_stream(key, stream, now)
        self._send_orders(now)
        self._send_peers()

    def _renew_plans(self) -> None:
        """A term begins: what the gateway before us still says is stale from here on."""
        self._to_renew = False
        for key, (plan, floor) in standing(self.world).items():
            again = renewed(plan, self._epochs.next(key, floor))
            self._send(topics.PLAN, again, node=key[0], model=key[1])
            self.world.note_plan(key, again)

    def _match_streams(self) -> None:
        """One stream for each device that shows interest in a registered model."""
        models = self._catalogue.models()
        interested = {key for key, view in self.world.streams.items() if view.state or view.stats}
        for key in sorted(interested):
            device, model_key = key
            model = models.get(model_key)
            if model is None:
                self._tell_unknown(key)
            elif key not in self._streams:
                self._streams[key] = Stream(
                    device, model, self._catalogue, self._epochs, self._settings, self._catalogue.slice_size
                )  # fmt: skip
            else:
                self._streams[key].model = model
        for key, view in self.world.streams.items():
            if view.plan and key[1] not in models and key not in self._kept:
                self._remove(key)
        self._unknown &= {key for key in interested if key[1] not in models}
        for key in [key for key in self._streams if key not in interested or key[1] not in models]:
            del self._streams[key]
            self._remove(key)

    def _forget_pins(self, now: float) -> None:
        """After a broker lost what it retained, pins that it no longer knows are obeyed no more."""
        forget_at = self._forget_at.setdefault(self._session, now + FORGET_S)
        if now < forget_at:
            return
        for device, model in self.world.forget_pins(self._session):
            self.alerts("pins_forgotten", f"the pin of {device} is not retained any more: {device} is planned freely",
                        topics.PIN.at(self._site, node=device, model=model))  # fmt: skip

    def _tell_unknown(self, key: StreamKey) -> None:
        if key not in self._unknown:
            self._unknown.add(key)
            self.alerts(
                "unknown_models",
                f"{key[0]} asks for model {key[1]}, which is not registered: splitbus model add FILE",
                topics.PLAN_STATE.at(self._site, node=key[0], model=key[1]),
            )

    def _remove(self, key: StreamKey) -> None:
        """Without its model or its device a plan is not to be found any more."""
        for kind in (topics.PLAN, topics.DECISION):
            topic = kind.at(self._site, node=key[0], model=key[1])
            self._bus.publish(topic, b"", qos=kind.qos, retain=True)
            self._sent.pop(topic, None)

    def _step_stream(self, key: StreamKey, stream: Stream, now: float) -> None:
        try:
            note_speeds(self.world, stream.model, key[0], now)
            turn = stream.step(self.world, now, self._timestamp())
        except Exception as error:  # noqa: BLE001 - a mistake in planning must not take the other plans down
            self.alerts("planning_failed", f"plan of {key[0]} stays as it is: {type(error).__name__}: {error}")
            return
        self._publish_turn(key, turn, now)
        if stream.running:  # also one that an earlier gateway published: a broker that forgets is told by us again
            self._send(topics.PLAN, stream.running, node=key[0], model=key[1])

    def _publish_turn(self, key: StreamKey, turn: Turn, now: float) -> None:
        for what, reason in turn.alerts:
            self.alerts(what, reason)
        if turn.plan:
            self._send_orders(now)
            self._send(topics.PLAN, turn.plan, node=key[0], model=key[1])
            self.world.note_plan(key, turn.plan)
            self.alerts.count("plans")
        if turn.decision:
            self._send(topics.DECISION, turn.decision, node=key[0], model=key[1])

    # What nodes are to do

    def _send_orders(self, now: float) -> None:
        kept = kept_slices(self.world, self._kept - set(self._streams))
        slices = union([kept, *(stream.wanted(now) for stream in self._streams.values())])
        views = [view for _, view in sorted(self.world.nodes.items()) if view.tier not in (None, "gateway")]
        unprofiled = {view.node: models for view in views if (models := self._unprofiled(view))}
        workers_first = sorted(unprofiled, key=lambda name: (self.world.nodes[name].tier == "device", name))
        stuck = {name for name in unprofiled if self.world.nodes[name].fails}
        admitted = self._turns.admit(workers_first, now, stuck)
        for view in views:
            models = unprofiled.get(view.node, []) if view.node in admitted else []
            profiles = self._profile_requests(view.node, models)
            work = m.NodeWork(slices=sorted(slices.get(view.node, ())), profiles=profiles, term=self._term)
            self._send(topics.WORK, work, node=view.node)

    def _unprofiled(self, view: NodeView) -> list[ModelFacts]:
        """Models in use there that this start of the node has not timed yet."""
        if not view.is_ready:
            return []
        used = {
            stream.model.model: stream.model
            for key, stream in sorted(self._streams.items())
            if (view.node == key[0] if view.tier == "device" else self._is_there(key[0]))
        }
        return [
            model
            for model in used.values()
            if not view.has_fresh_profile(model.model, model.block_ends, self.world.speeds.round(view.node, model.key))
        ]

    def _profile_requests(self, node: str, models: Iterable[ModelFacts]) -> list[m.ProfileRequest]:
        requests = []
        for model in models:
            try:
                turn = self.world.speeds.round(node, model.key)
                requests.append(self._catalogue.profile_request(model.model).model_copy(update={"round": turn}))
            except SplitbusError as error:
                self.alerts("profiles_failed", f"{model.name} cannot be cut into blocks: {error}")
        return requests

    def _is_there(self, device: str) -> bool:
        view = self.world.nodes.get(device)
        return view is not None and view.is_ready

    def _send_peers(self) -> None:
        """Devices keep the links to all workers measured, edge workers those to the cloud."""
        workers = [(view.node, view.tier) for view in self.world.workers()]
        for name, view in sorted(self.world.nodes.items()):
            if view.tier not in ("device", "edge"):
                continue
            seen = [(node, tier) for node, tier in workers if view.tier == "device" or tier == "cloud"]
            nodes = [{"node": node, "tier": tier} for node, tier in seen]
            peers = m.Peers.model_validate({"peers": nodes, "term": self._term})
            self._send(topics.PEERS, peers, node=name)

    def _send(self, kind: topics.Topic, message: m.Message, **fields: str) -> None:
        """Publish what is not there yet."""
        topic = kind.at(self._site, **fields)
        payload = self._signer.seal(topic, message)
        if self._sent.get(topic) == payload:
            return
        self._sent[topic] = payload
        if not self._bus.publish(topic, payload, qos=kind.qos, retain=kind.retain):
            del self._sent[topic]
