"""A device's side of the bus: its connections, its presence, and the plan it follows."""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import threading
import time
from pathlib import Path
from typing import Final

from splitbus_device.answer import Answer
from splitbus_device.courier import Courier, Fallback, Frame
from splitbus_device.flights import Flights
from splitbus_device.follower import NO_PLAN, ActivePlan, PlanFollower
from splitbus_device.models import LocalModel
from splitbus_device.streamstats import StreamTally
from splitbus_runtime.agent import Agent, default_store, new_boot
from splitbus_runtime.bus import Delivery, Will
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.settings import BrokerSettings
from splitbus_runtime.store import BlobStore
from splitbus_runtime.transport import Parcel
from splitbus_schemas.errors import BusError, DecodeError, ModelError
from splitbus_schemas.ids import check_id, is_id, model_key
from splitbus_schemas.messages import ModelCard, NodeStatus
from splitbus_schemas.packet_types import Echo
from splitbus_schemas.topics import MODEL, REPLY, STATUS, STREAM

STATS_SECONDS: Final = 1.0
CARD_SECONDS: Final = 10.0
"""A registered model's card is retained: it comes at once or not at all."""

WILL_DELAY_S: Final = 2
"""A short loss of the network is no death."""


def default_device() -> str:
    """The machine's name as an id."""
    name = "".join(c if c.isalnum() else "-" for c in socket.gethostname().lower().split(".")[0]).strip("-")
    return name if is_id(name) else "device"


class Uplink:
    """One session's way to the bus. Nothing here is needed for a local answer, and nothing here blocks one."""

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        site: str,
        device: str | None,
        folder: Path | None,
        window: int,
        slowdown: float,
    ) -> None:
        self.device = check_id("device", device or default_device())
        self.tally = StreamTally()
        self._site = check_id("site", site)
        self._boot = new_boot()
        self._folder = folder or default_store(self.device)
        self._flights = Flights(window)
        self._follower: PlanFollower | None = None
        self._courier: Courier | None = None
        self._local: LocalModel | None = None
        self._model = ""
        self._local_seq = itertools.count(1)
        self._cards: queue.SimpleQueue[ModelCard | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        will = Will(*Agent.lost(site, self.device, self._boot, "device"), delay_s=WILL_DELAY_S)
        self._control = _connect(settings, f"{self.device}-ctl-{self._boot}", will)
        self._data = _connect(settings, f"{self.device}-data-{self._boot}", None)
        self._agent = Agent(
            site=site,
            node=self.device,
            boot=self._boot,
            tier="device",
            control=self._control,
            data=self._data,
            store=BlobStore(self._folder),
            slowdown=slowdown,
        )
        self._agent.links.crowded = lambda: self._flights.count > 0
        self._agent.port.receive(REPLY.at(site, node=self.device, boot=self._boot), self._take)
        self._data.watch(self._on_connection)
        self._control.subscribe(MODEL.at(site, name="+"), self._on_card, qos=1)
        self._control.subscribe(STATUS.at(site, node="+"), self._on_status, qos=1)
        self._agent.start()
        self._threads = [
            threading.Thread(target=self._card_loop, name=f"splitbus-{self.device}-cards", daemon=True),
            threading.Thread(target=self._stats_loop, name=f"splitbus-{self.device}-stats", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def active(self) -> ActivePlan | None:
        """The plan to follow now; None while there is none or no broker."""
        follower = self._follower
        return follower.active if follower is not None and self._data.connected else None

    def attend(self, local: LocalModel) -> None:
        """Follow plans for this model as soon as the gateway turns out to know it."""
        self._local = local
        self._cards.put(None)

    def deliver(self, active: ActivePlan, frame: Frame) -> Answer | Fallback:
        """Answer a frame over the bus."""
        courier = self._courier
        return courier.deliver(active, frame) if courier is not None else Fallback("no model")

    def local_frame(self) -> str:
        """An id for a frame that was answered here."""
        return f"{self.device}/{self._boot}/l{next(self._local_seq)}"

    def fetch_model(self, name: str) -> LocalModel:
        """A registered model's files, from the store or over the bus. Raises BusError, BlobError or ModelError."""
        card = self._card(name)
        folder = self._folder / "models" / card.model
        for file in card.files:
            self._agent.blobs.fetch(file.sha256)
            _place(self._agent.store, file.sha256, folder, file.name)
        folder.joinpath("card.json").write_bytes(card.to_json())
        (self._folder / "models" / f"{name}.json").write_bytes(card.to_json())
        main = folder / card.files[0].name
        return LocalModel(main, f"model {name} ({main})", card.files[0].sha256, main)

    def close(self) -> None:
        """Leave the bus."""
        self._closing.set()
        self._cards.put(None)
        if self._follower is not None:
            self._follower.stop()
        self._agent.stop()
        for thread in self._threads:
            thread.join(5)
        self._data.close()
        self._control.close()

    def _card(self, name: str) -> ModelCard:
        """The card of a registered model: as retained on the bus, or as kept from last time."""
        arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        topic = MODEL.at(self._site, name=name)
        kept = self._folder / "models" / f"{name}.json"
        patience = 1.0 if kept.is_file() else CARD_SECONDS
        self._control.subscribe(topic, lambda delivery: arrived.put(delivery.payload), qos=1)
        try:
            return ModelCard.from_json(arrived.get(timeout=patience))
        except queue.Empty:
            if kept.is_file():
                return ModelCard.from_json(kept.read_bytes())
            self._control.wait_connected(0.0)
            raise ModelError(
                f"model {name!r} is not registered at site {self._site!r}: "
                f"on the gateway, run splitbus model add {name} FILE"
            ) from None
        finally:
            self._control.unsubscribe(topic)

    # What arrives, on the buses' threads

    def _take(self, parcel: Parcel) -> None:
        if isinstance(parcel.packet, Echo):
            self._agent.links.take_echo(parcel.packet, parcel)
            return
        if self._courier is not None:
            self._courier.overhear(parcel)
        if not self._flights.take(parcel):
            self._agent.count("unwanted_answers")

    def _on_connection(self, connected: bool) -> None:  # noqa: FBT001 - the Bus's signature
        if not connected:
            self._flights.disconnected()

    def _on_status(self, delivery: Delivery) -> None:
        if not delivery.payload:
            return
        with contextlib.suppress(DecodeError):
            status = NodeStatus.from_json(delivery.payload)
            if status.state in ("lost", "stopping"):
                self._flights.node_lost(status.node)

    def _on_card(self, delivery: Delivery) -> None:
        if not delivery.payload:
            return
        try:
            self._cards.put(ModelCard.from_json(delivery.payload))
        except DecodeError as error:
            self._agent.alert("bad_messages", str(error), delivery.topic)

    # Threads

    def _card_loop(self) -> None:
        """Find our model among the registered ones, then follow its plans."""
        seen: dict[str, ModelCard] = {}
        digest = ""
        while not self._closing.is_set():
            card = self._cards.get()
            if card is not None:
                seen[card.name] = card
            if self._local is None or self._follower is not None or self._closing.is_set():
                continue
            digest = digest or self._local.digest()
            match = next((c for c in seen.values() if c.files and c.files[0].sha256 == digest), None)
            if match is not None:
                self._follow(match, self._local)

    def _follow(self, card: ModelCard, local: LocalModel) -> None:
        if local.path is not None:
            for file in card.files:  # weights are read from here, not fetched
                path = local.path if file is card.files[0] else local.path.parent / file.name
                if path.is_file() and path.stat().st_size == file.bytes:
                    self._agent.store.file_hash(path)
        self._model = card.model
        self._courier = Courier(self._agent, self._flights, card.model)
        self._follower = PlanFollower(self._agent, card.model)
        self._follower.start()

    def _stats_loop(self) -> None:
        before = time.monotonic()
        while not self._closing.wait(STATS_SECONDS):
            now = time.monotonic()
            active = self.active
            if self._model:
                report = self.tally.report(
                    node=self.device,
                    boot=self._boot,
                    model=self._model,
                    plan=active.plan.plan if active is not None else NO_PLAN,
                    epoch=active.plan.epoch if active is not None else 0,
                    period_s=now - before,
                    in_flight=self._flights.count,
                )
                topic = STREAM.at(self._site, node=self.device, model=model_key(self._model))
                self._control.publish(topic, report.to_json(), retain=True)
            before = now


def _connect(settings: BrokerSettings, client_id: str, will: Will | None) -> MqttBus:
    return MqttBus(
        settings.host,
        settings.port,
        client_id=client_id,
        username=settings.user,
        password=settings.read_password(),
        tls=settings.ssl_context(),
        will=will,
    )


def _place(store: BlobStore, sha256: str, folder: Path, name: str) -> None:
    """Put a blob where onnxruntime finds it by name: external data lie beside the model."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise ModelError(f"the gateway names a model file {name!r}: a plain file name was expected")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name
    if not target.exists():
        try:
            target.hardlink_to(store.path(sha256))
        except OSError as error:
            raise BusError(f"{target} cannot be written: {error.strerror}") from None
