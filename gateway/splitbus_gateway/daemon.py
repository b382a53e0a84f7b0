"""The gateway daemon: one thread that takes what the bus says, keeps the plans right and the model cards in place."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final, Self

from splitbus_gateway.alerts import Alerts
from splitbus_gateway.blob_service import STUCK_SECONDS, BlobService
from splitbus_gateway.cards import Cards
from splitbus_gateway.config import GatewayConfig, PlannerSettings
from splitbus_gateway.controller import Controller
from splitbus_gateway.epochs import Epochs
from splitbus_gateway.fenced import FencedBus
from splitbus_gateway.hysteresis import Settings as Hysteresis
from splitbus_gateway.key_service import KeyService
from splitbus_gateway.leadership import Leadership, Mandate
from splitbus_gateway.presence import Presence
from splitbus_gateway.problem import OBJECTIVES, Limits, Objective
from splitbus_gateway.registry import Registry
from splitbus_gateway.signing import load_signer
from splitbus_gateway.slicing import SliceBook
from splitbus_gateway.stream import StreamSettings
from splitbus_runtime.agent import new_boot, timestamp
from splitbus_runtime.bus import Bus, Delivery
from splitbus_runtime.health import Health, Verdict
from splitbus_runtime.twins import look_after_each_other
from splitbus_schemas.errors import SplitbusError
from splitbus_schemas.topics import MODEL, STATUS

log = logging.getLogger(__name__)

BEAT_S: Final = 1.0
POLL_S: Final = 0.25
STUCK_S: Final = 30.0
"""Taking a message, noticing models and planning end sooner, slicing a large model included."""
STALE_S: Final = 10.0
"""Without a round trip through the broker for so long, something is wedged."""


DOING: Final = {
    "models_failed": "reading the models",
    "keys_failed": "reading whose keys count",
    "planning_failed": "planning",
}
"""What each guarded part is at, by the counter of its failures."""


class GatewayDaemon:
    """The gateway of a site. `control` and `data` are connections of their own, so that no plan waits for a blob.

    Use as a context manager, or `start` and `stop`; the connections stay the caller's. `lost` gives the last will
    that `control` connects with.
    """

    def __init__(
        self, config: GatewayConfig, control: Bus, data: Bus, registry: Registry, *, boot: str | None = None
    ) -> None:
        self.config = config
        self.boot = boot or new_boot()
        self._control, self._data, self._registry = control, data, registry
        signer = load_signer(config.state_dir)
        self._slices = SliceBook(registry, codecs=config.planner.codecs, signer=signer, proven=config.planner.proven)
        site, node, now = config.site, config.node, time.monotonic()
        self.health = Health(timestamp)
        self._pulse = self.health.pulses.add("planning", STUCK_S)
        self.alerts = Alerts(control, site=site, node=node, clock=time.monotonic, health=self.health)
        self._presence = Presence(control, site=site, node=node, boot=self.boot, now=now)
        self._inbox: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._turned_at = now
        self.leadership = Leadership(
            control,
            signer,
            self.alerts,
            site=site,
            node=node,
            boot=self.boot,
            settings=config.lease,
            file=config.state_dir / "lease.json",
            alive=lambda: time.monotonic() - self._turned_at < STALE_S,
            changed=lambda: self._inbox.put(None),
        )
        fenced = FencedBus(control, self.leadership.leads)
        self._mandate: Mandate | None = None
        self._led_in = 0
        self._role = ""
        self._controller = Controller(
            fenced,
            self._slices,
            Epochs(config.state_dir / "epochs.json"),
            self.alerts,
            site=site,
            settings=stream_settings(config.planner),
            timestamp=timestamp,
            now=now,
            signer=signer,
        )
        self._cards = Cards(fenced, registry, signer, site=site, file=config.state_dir / "announced.json")
        self._keys = KeyService(fenced, signer, site=site, folder=config.state_dir)
        self._stopping = threading.Event()
        self._blobs: BlobService | None = None
        self._thread = threading.Thread(target=self._run, name="splitbus-gateway", daemon=True)

    @staticmethod
    def lost(site: str, node: str, boot: str) -> tuple[str, bytes]:
        """Topic and payload of the last will."""
        return Presence.lost(site, node, boot)

    def start(self) -> None:
        """Subscribe, stand by, and lead when nobody else does."""
        self._blobs = BlobService(
            self._data,
            self._registry.store,
            site=self.config.site,
            node=self.config.node,
            bytes_per_s=self.config.blobs.max_mbit * 1e6 / 8,
            pulse=self.health.pulses.add("blobs", STUCK_SECONDS),
            serves=self.leadership.leads,
        )
        look_after_each_other(self._control, self._data)
        cards = MODEL.at(self.config.site, name="+")
        self._control.subscribe([*self._controller.filters, cards, self._keys.topic], self._inbox.put, qos=1)
        self._control.subscribe(self._presence.echo_topic, self._inbox.put)
        self._tell_role()
        self._thread.start()
        self.leadership.start()

    def stop(self, reason: str = "stopped") -> None:
        """Say goodbye and end the threads; plans stay, and nodes go on with them."""
        self._stopping.set()
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(10)
        self.leadership.stop()
        if self._blobs:
            self._blobs.close()
        self._presence.tell("stopping", reason)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def echo_age_s(self) -> float:
        """Seconds since a heartbeat last came back through the broker and this daemon's own thread."""
        return time.monotonic() - self._presence.echoed_at

    @property
    def answered(self) -> bool:
        """Whether a heartbeat has come back at all: the broker has taken our subscriptions."""
        return self._presence.answered

    def healthy(self, limit_s: float = STALE_S) -> bool:
        """Whether the daemon lives and the broker answers: what a watchdog is fed from."""
        return self._thread.is_alive() and self.echo_age_s < limit_s and self.verdict.state != "stuck"

    @property
    def verdict(self) -> Verdict:
        """How it does: what hangs, and what went wrong of late."""
        return self.health.verdict(self.echo_age_s if self.answered else None)

    # The thread

    def _run(self) -> None:
        next_beat = 0.0
        while not self._stopping.is_set():
            due_s = self._controller.due_in(time.monotonic())
            self._take(POLL_S if self._mandate is None else min(POLL_S, due_s))
            now = self._turned_at = time.monotonic()
            before = self._mandate
            self._guarded("models_failed", self._assume)
            if now >= next_beat or self._mandate != before:
                next_beat = now + BEAT_S
                self._guarded("models_failed", self._refresh_models)
                self._guarded("keys_failed", self._refresh_keys)
                self._guarded("models_failed", self._tell_role)
                self._presence.beat(self._counters(), self._inbox.qsize(), now)
                self._presence.tell_health(self.health, self.verdict, self._counters(), now)
            if self._mandate is not None:
                self._guarded("planning_failed", lambda: self._controller.step(time.monotonic()))

    def _assume(self) -> None:
        """Note whether we lead; a new term, or a new connection, begins with everything being said again."""
        mandate = self.leadership.mandate
        if mandate is not None and mandate != self._mandate:
            self._cards.begin()
            self._keys.begin()
            if mandate.term != self._led_in:
                self._controller.begin(mandate.term, self._cards.had)
            else:
                self._controller.resume()
            self._led_in = mandate.term
        self._mandate = mandate

    def _take(self, patience_s: float) -> None:
        """All messages that are there, after waiting for the first."""
        try:
            delivery = self._inbox.get(timeout=max(patience_s, 0.001))
            while delivery is not None:
                with self._pulse.working(f"taking {delivery.topic}"):
                    self._handle(delivery)
                delivery = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _handle(self, delivery: Delivery) -> None:
        now = time.monotonic()
        if delivery.topic == self._presence.echo_topic:
            self._presence.echo(delivery.payload, now)
        elif delivery.topic == self._keys.topic:
            self._keys.note(delivery.payload)
        elif card := MODEL.match(delivery.topic):
            self._cards.note(delivery.topic, card["name"], delivery.payload)
        else:
            if STATUS.match(delivery.topic):
                self.leadership.note_status(delivery.payload)
            self._controller.handle(delivery, now)

    def _counters(self) -> dict[str, int]:
        return {**self.alerts.counters, **(self._blobs.counters if self._blobs else {})}

    def _guarded(self, what: str, act: Callable[[], None]) -> None:
        try:
            with self._pulse.working(DOING[what]):
                act()
        except SplitbusError as error:
            self.alerts(what, str(error))
        except Exception as error:
            log.exception("%s", what)
            self.alerts(what, f"{type(error).__name__}: {error}")

    def _refresh_keys(self) -> None:
        if self._keys.refresh():
            self._controller.world.keys = self._keys.known
            self._controller.touch(time.monotonic())

    # Models

    def _refresh_models(self) -> None:
        """Notice added and removed models; who leads puts their cards on the bus, who stands by says what it lacks."""
        if self._mandate is None:
            return
        if self._cards.announce():
            self._controller.touch(time.monotonic())
        who, term = self._controller.told
        if term > self._mandate.term:
            self.leadership.catch_up(who, term)

    # Who leads

    @property
    def role(self) -> str:
        """Whether we lead, in a few words; as told last."""
        return self._role

    def _describe_role(self) -> str:
        trouble = self.leadership.trouble
        return self._describe_part() + (f"; {trouble}" if trouble else "")

    def _describe_part(self) -> str:
        leader = self.leadership.leader
        if self._mandate is not None:
            return f"leads in term {self._mandate.term}"
        if leader is None or leader.boot == self.boot:
            return "stands by"
        lacking = self._cards.lacking
        return f"stands by for {leader.node}" + (f", and lacks models {', '.join(lacking)}" if lacking else "")

    def _tell_role(self) -> None:
        role = self._describe_role()
        if role != self._role:
            if "lacks" in role:
                self.alerts("models_lacking", f"{self.config.node} {role}: splitbus model add them here as well")
            self._role = role
            self._presence.tell("ready", role)


def stream_settings(planner: PlannerSettings) -> StreamSettings:
    """The settings that streams are planned by."""
    weights = planner.weights
    return StreamSettings(
        limits=Limits(
            min_agreement=planner.agreement,
            codecs=frozenset(planner.codecs),
            deadline_ms=planner.deadline_ms,
            keep_on_device=max(planner.keep_blocks_on_device, int(planner.keep_input_on_device)),
            keep_on_site=planner.keep_blocks_on_site,
            max_rebuilt=planner.max_rebuilt,
            device_memory_mb=planner.device_memory_mb,
            max_mbit=planner.max_mbit,
            max_mb_per_day=planner.max_mb_per_day,
            must_run=frozenset(planner.must_run),
            must_not_run=frozenset(planner.must_not_run),
        ),
        slack=planner.slack,
        objective=Objective(**weights.model_dump()) if weights.are_given else OBJECTIVES[planner.objective],
        hysteresis=Hysteresis(
            min_gain=planner.min_gain,
            min_gain_ms=planner.min_gain_ms,
            dwell_s=planner.dwell_s,
            max_dwell_s=planner.max_dwell_s,
            sharp=planner.sharp,
        ),
    )
