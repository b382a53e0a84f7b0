"""A device's side of the bus: its connections, its presence, and the plan it follows."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from splitbus_device.answer import Answer
from splitbus_device.cards import Cards, files_of, keep, kept, lay_out
from splitbus_device.courier import Courier
from splitbus_device.envelope import envelope_for
from splitbus_device.flights import Flights
from splitbus_device.follower import NO_PLAN, ActivePlan, PlanFollower, recorded
from splitbus_device.frame import Fallback, Frame
from splitbus_device.guard import Checked, Guard
from splitbus_device.models import LocalModel
from splitbus_device.nodes import NodeWatch
from splitbus_device.recorded import Head
from splitbus_device.reuse import Reuse
from splitbus_device.streamstats import StreamTally
from splitbus_runtime.agent import Agent, default_store, new_boot
from splitbus_runtime.bus import Delivery, Will
from splitbus_runtime.dial import dial_broker
from splitbus_runtime.settings import BrokerSettings
from splitbus_runtime.statuses import status_in
from splitbus_runtime.store import BlobStore
from splitbus_runtime.transport import Parcel
from splitbus_runtime.trust import Trust
from splitbus_schemas.errors import BlobError, DecodeError, ModelError, SealError, SplitbusError
from splitbus_schemas.ids import check_id, is_id, model_key, sha256
from splitbus_schemas.messages import ModelCard, NodeStatus, StreamStats
from splitbus_schemas.packet_types import Echo, Refusal, Result
from splitbus_schemas.topics import MODEL, REPLY, STATUS, STREAM

log = logging.getLogger(__name__)

STATS_SECONDS: Final = 1.0

CARD_SECONDS: Final = 10.0
"""A registered model's card is retained: once connected, it comes at once or not at all."""

KEPT_SECONDS: Final = 2.0
"""The same when a card is kept from last time: a camera without a network should begin to work."""

_TAKES_FRAMES: Final = (
    "it was made from this file to take frames as they are, in uint8: open it by its name, or the file that "
    "splitbus model export writes"
)

PLAN_POLL_S: Final = 0.02
"""How often a frame whose head was run before looks for a way."""

WILL_DELAY_S: Final = 1
"""A short loss of the network is no death. Brokers count whole seconds: it takes up to one more."""


def default_device() -> str:
    """The machine's name as an id."""
    name = "".join(c if c.isalnum() else "-" for c in socket.gethostname().lower().split(".")[0]).strip("-")
    return name if is_id(name) else "device"


class Uplink:
    """One session's way to the bus. Nothing here is needed for a local answer, and nothing here blocks one.

    Raises ConfigError, or BlobError for a store that cannot be written.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        site: str,
        device: str | None,
        folder: Path | None,
        window: int,
        slowdown: float,
        threads: int,
        trust: Trust,
        seal_key: str | os.PathLike[str] | None = None,
        reuse: Reuse | None = None,
    ) -> None:
        self.device = check_id("device", device or default_device())
        self.tally = StreamTally()
        self.guard: Guard | None = None
        self._reuse = reuse
        self._site = check_id("site", site)
        self._boot = new_boot()
        self._folder = folder or default_store(self.device)
        store, connect = BlobStore(self._folder), dial_broker(settings)  # what can fail, before threads begin
        self._flights = Flights(window)
        self._nodes = NodeWatch()
        self._cards = Cards()
        self._follower: PlanFollower | None = None
        self._courier: Courier | None = None
        self._model = ""
        self._local_seq = itertools.count(1)
        self._closing = threading.Event()
        self._envelope = envelope_for(seal_key, trust, store, site=site, node=self.device, boot=self._boot)
        self._hurry = threading.Event()
        """The gateway should hear of the stream before the second is over."""
        will = Will(*Agent.lost(site, self.device, self._boot, "device"), delay_s=WILL_DELAY_S)
        self._control = connect(f"{self.device}-ctl-{self._boot}", will)
        self._data = connect(f"{self.device}-data-{self._boot}", None)
        self._agent = Agent(
            site=site,
            node=self.device,
            boot=self._boot,
            tier="device",
            control=self._control,
            data=self._data,
            store=store,
            threads=threads,
            slowdown=slowdown,
            trust=trust,
        )
        self.blocks = self._agent.blocks
        self._envelope.follow(self._agent)
        self._flights.backlog = lambda: self._data.queued_bytes
        self._agent.links.crowded = lambda: self._flights.count > 0
        self._agent.port.receive(REPLY.at(site, node=self.device, boot=self._boot), self._take)
        self._data.watch(self._on_connection)
        self._control.subscribe(MODEL.at(site, name="+"), self._on_card, qos=1)
        self._control.subscribe(STATUS.at(site, node="+"), self._on_status, qos=1)
        self._agent.start()
        self._threads: list[threading.Thread] = []
        self._spawn("stats", self._stats_loop)
        atexit.register(self._say_goodbye)

    @property
    def active(self) -> ActivePlan | None:
        """The plan to follow now; None while there is none or no broker."""
        follower = self._follower
        return follower.active if follower is not None and self._data.connected else None

    def attend(self, local: LocalModel, warm_up: Callable[[], None]) -> None:
        """Follow plans for this model as soon as the gateway turns out to know it; `warm_up` is called before."""
        self._spawn("model", lambda: self._find_model(local, warm_up))

    def deliver(self, active: ActivePlan, frame: Frame) -> Answer | Fallback:
        """Answer a frame over the bus. Raises nothing."""
        courier = self._courier
        return courier.deliver(active, frame) if courier is not None else Fallback("no model")

    def plan_for(self, head: Head) -> ActivePlan | None:
        """By which plan a frame goes on whose head was run in an earlier life; None while there is no way."""
        if self._courier is None or not self._data.connected or head.plan.model != self._model:
            return None
        active = self.active
        if active is not None and active.plan.head is not None and active.plan.head == head.plan.head:
            return active
        try:
            return recorded(head.plan)
        except ModelError as error:
            self._agent.alert("durable_damaged", str(error))
            return None

    def wait_plan(self, head: Head, patience: float) -> ActivePlan | None:
        """`plan_for`, but wait until time.monotonic() is `patience` for the broker to be there."""
        while (active := self.plan_for(head)) is None and time.monotonic() < patience:
            if self._closing.wait(PLAN_POLL_S):
                break
        return active

    def report(self, what: str, reason: str) -> None:
        """Count; publish the reason too, when there is one."""
        if reason:
            self._agent.alert(what, reason)
        else:
            self._agent.count(what)

    def local_frame(self) -> str:
        """An id for a frame that never left."""
        return f"{self.device}/{self._boot}/l{next(self._local_seq)}"

    def fetch_model(self, name: str) -> Path:
        """A registered model's main file, from the store or over the bus. Raises BusError, BlobError or ModelError."""
        note = self._folder / "models" / f"{name}.json"
        known = kept(note)
        card = self._cards.wait(lambda card: card.name == name, KEPT_SECONDS if known else CARD_SECONDS) or known
        if card is None:
            self._control.wait_connected(0.0)
            raise ModelError(
                f"model {name!r} is not registered at site {self._site!r}: "
                f"on the gateway, run splitbus model add {name} FILE"
            )
        try:
            path = self._fetch_files(card)
        except BlobError as error:
            if known is None or known == card:
                raise
            log.warning("model %s is used as it was kept: its new files cannot be had (%s)", name, error)
            return self._fetch_files(known)
        keep(card, note)
        return path

    def close(self) -> None:
        """Leave the bus."""
        atexit.unregister(self._say_goodbye)
        self._closing.set()
        self._hurry.set()
        self._cards.close()
        self._agent.blobs.close()
        for thread in self._threads:
            thread.join(5)
        if self._follower is not None:
            self._follower.stop()
        self._agent.stop()
        self._data.close()
        self._control.close()

    def _say_goodbye(self) -> None:
        """A program that knows onnxruntime alone never closes its session; at its end it is stopping, not lost."""
        if self._control.connected:
            self.close()

    def _fetch_files(self, card: ModelCard) -> Path:
        folder = self._folder / "models" / card.model
        for digest, _ in files_of(card, folder):
            self._agent.blobs.fetch(digest)
        return lay_out(card, self._agent.store, folder)

    # What arrives, on the buses' threads

    def _take(self, parcel: Parcel) -> None:
        try:
            parcel = self._envelope.open(parcel)
        except SealError as error:
            self._agent.alert(error.counter, str(error), parcel.topic)
            return
        packet = parcel.packet
        self._hear(parcel)
        if isinstance(packet, Echo):
            self._agent.links.take_echo(packet, parcel)
            return
        if not isinstance(packet, Result | Refusal) or packet.frame.boot != self._boot:
            self._agent.count("unwanted_answers")
            return
        if isinstance(packet, Result) and self._courier is not None:
            self._courier.note_answer(packet)  # before the next frame is coded
        alone_since = self._flights.alone_since(packet.frame.seq)  # its caller ends the flight once it is taken
        if not self._flights.take(parcel):
            self._agent.count("unwanted_answers")
        if self._courier is not None:
            self._courier.overhear(parcel, alone_since)

    def _hear(self, parcel: Parcel) -> None:
        """Whoever makes a sound is not hung."""
        packet = parcel.packet
        speaker = packet.spent[-1].node if isinstance(packet, Result) and packet.spent else getattr(packet, "node", "")
        if self._nodes.breaker.sound(speaker, parcel.at):
            self._hurry.set()

    def _on_connection(self, connected: bool) -> None:  # noqa: FBT001 - the Bus's signature
        if not connected:
            self._flights.disconnected()

    def _on_status(self, delivery: Delivery) -> None:
        try:
            status = status_in(delivery)
        except DecodeError as error:
            self._agent.alert("bad_messages", str(error), delivery.topic)
            return
        if status is None:
            return
        self._envelope.note(status)
        if status.node == self.device:
            self._on_own_status(status, retained=delivery.retain)
            return
        if self._nodes.note(status):
            self._flights.node_lost(status.node)
            if self._courier is not None:
                self._courier.forget(status.node)
        else:
            self._on_ready(status, retained=delivery.retain)

    def _on_ready(self, status: NodeStatus, *, retained: bool) -> None:
        """A worker begins anew, or says how fast it is: one that is as fast as ever is left alone no more."""
        if self._nodes.returns(status) and not retained:
            self._flights.node_returned(status.node)
        if self._nodes.recovers(status):  # what seemed to be its link was itself
            self._agent.links.measure_anew(status.node, time.monotonic())
        if status.pace is None and self._nodes.breaker.forget(status.node):
            self._hurry.set()

    def _on_own_status(self, status: NodeStatus, *, retained: bool) -> None:
        """Another session under our id; what it says when it ends must not stand for us (its will: see Agent)."""
        if status.boot == self._boot or retained or self._closing.is_set():
            return
        if status.state == "stopping":
            self._agent.tell_presence()
        elif status.state == "ready":
            reason = f"another session calls itself {self.device}: give each session a device id of its own"
            self._agent.alert("shared_device_id", reason)

    def _on_card(self, delivery: Delivery) -> None:
        fields = MODEL.match(delivery.topic)
        if fields is None:
            return
        try:
            self._cards.note(fields["name"], self._agent.trust.open(delivery.topic, delivery.payload))
        except DecodeError as error:
            self._agent.alert(error.counter, str(error), delivery.topic)

    # Threads

    def _spawn(self, what: str, run: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                run()
            except SplitbusError as error:
                self._agent.alert(f"{what}_failed", str(error))
            except Exception as error:
                log.exception("%s: the thread for %s ended", self.device, what)
                self._agent.alert("errors", f"the thread for {what} ended: {error}")

        thread = threading.Thread(target=guarded, name=f"splitbus-{self.device}-{what}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _find_model(self, local: LocalModel, warm_up: Callable[[], None]) -> None:
        """Find our model among the registered ones, then follow its plans."""
        source, store = local.source, self._agent.store
        digest = sha256(source) if isinstance(source, bytes) else store.file_hash(source)
        others: set[str] = set()
        while card := self._cards.wait(lambda c: digest in (c.files[0].sha256, c.made_from) and c.model not in others):
            objection = self._objection(card, source) if digest == card.files[0].sha256 else _TAKES_FRAMES
            if not objection:
                warm_up()
                self._follow(card.model)
                return
            others.add(card.model)
            self._agent.alert("model_differs", f"{local.what} is not model {card.name}: {objection}")

    def _objection(self, card: ModelCard, source: Path | bytes) -> str:
        """Why the files here are not the card's; "" when they are. The store learns where they lie."""
        store = self._agent.store
        try:
            if isinstance(source, bytes):
                store.put(source)  # its weights are read from there, not fetched
                return "" if len(card.files) == 1 else "it has further files, which bytes cannot refer to"
            folder = source.parent
            for digest, path in list(files_of(card, folder))[1:]:
                if store.file_hash(path) != digest:
                    return f"{path} has other contents"
        except SplitbusError as error:
            return str(error)
        return ""

    def _follow(self, model: str) -> None:
        self._model = model
        self._courier = Courier(
            self._agent, self._flights, self._nodes, model, envelope=self._envelope, reuse=self._reuse
        )
        self._courier.on_rest = self._hurry.set
        follower = PlanFollower(self._agent, model)
        if not self._closing.is_set():
            follower.start()
            self._follower = follower

    def _stats_loop(self) -> None:
        before = time.monotonic()
        while True:
            self._hurry.wait(STATS_SECONDS)
            if self._closing.is_set():
                return
            self._hurry.clear()
            now = time.monotonic()
            if self._model:
                topic = STREAM.at(self._site, node=self.device, model=model_key(self._model))
                self._control.publish(topic, self._stats(now - before).to_json(), retain=True)
            else:
                self.tally.clear()
            before = now

    def _stats(self, period_s: float) -> StreamStats:
        active = self.active
        checked = self.guard.checked if self.guard is not None else Checked()
        if active is None or (checked.plan, checked.epoch) != (active.plan.plan, active.plan.epoch):
            checked = Checked()
        return self.tally.report(
            node=self.device,
            boot=self._boot,
            model=self._model,
            plan=active.plan.plan if active is not None else NO_PLAN,
            epoch=active.plan.epoch if active is not None else 0,
            period_s=period_s,
            in_flight=self._flights.count,
            guarded=checked.checked,
            agreed=checked.agreed,
            avoided=self._nodes.breaker.resting(time.monotonic()),
        )
