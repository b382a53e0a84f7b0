"""What a device and a worker have in common: presence, heartbeat, orders, links, statistics."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import logging
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from splitbus_runtime.blobs import BlobClient
from splitbus_runtime.bus import Bus, Delivery
from splitbus_runtime.health import Health, Identity
from splitbus_runtime.linkbook import LinkBook
from splitbus_runtime.orders import Orders
from splitbus_runtime.processor import memory_mb
from splitbus_runtime.profiler import Stopwatch
from splitbus_runtime.pulse import LONG_SECONDS
from splitbus_runtime.refresher import Refresher
from splitbus_runtime.secrets import redacted
from splitbus_runtime.shelf import Shelf
from splitbus_runtime.store import BlobStore
from splitbus_runtime.term_floor import TermFloor
from splitbus_runtime.transport import PacketPort
from splitbus_runtime.trust import Trust
from splitbus_runtime.twins import look_after_each_other
from splitbus_schemas.codecs import known_codecs
from splitbus_schemas.errors import DecodeError, SplitbusError
from splitbus_schemas.ids import check_id, model_key
from splitbus_schemas.messages import (
    Alert,
    NodeCaps,
    NodeProfile,
    NodeStats,
    NodeStatus,
    NodeWork,
    Peers,
    SealState,
    Tier,
)
from splitbus_schemas.topics import ALERT, CAPS, ECHO, HEALTH, PEERS, PROFILE, STATS, STATUS, WORK

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
STATS_SECONDS: Final = 1.0
STUCK_SECONDS: Final = 30.0
"""A heartbeat that has not been sent for so long hangs."""
MAX_ALERTS_PER_SECOND: Final = 5
"""Of a kind: a flood of bad messages makes no flood of alerts, nor hides what else is wrong; the counters count on."""


def new_boot() -> str:
    """An id for this start of a node."""
    return secrets.token_hex(4)


def software() -> str:
    """Name and version of this program."""
    return f"splitbus {importlib.metadata.version('splitbus')}"


def timestamp() -> str:
    """Now, ISO 8601; for people, never for arithmetic."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a node is."""

    busy: float = 0.0
    queued: int = 0
    concurrency: int = 1
    oldest_s: float = 0.0
    """How long the frame that waits longest has waited."""


class Agent:
    """A node's presence on the bus. `control` and `data` are connections of their own: a plan never waits for a tensor.

    `status(...)` gives the last will to connect with before the agent exists.
    """

    def __init__(
        self,
        *,
        site: str,
        node: str,
        boot: str,
        tier: Tier,
        control: Bus,
        data: Bus,
        store: BlobStore,
        threads: int = 0,
        slowdown: float = 1.0,
        limit_bytes: int = 2**30,
        concurrency: int = 1,
        trust: Trust | None = None,
    ) -> None:
        self.site, self.node, self.boot, self.tier = check_id("site", site), check_id("node", node), boot, tier
        self.control, self.data = control, data
        self.store = store
        self.trust = trust or Trust()
        self.counters: dict[str, int] = {}
        self._terms = TermFloor()
        self.load: Callable[[], Load] = Load
        self.seal: Callable[[], SealState | None] = lambda: None
        self.pace: Callable[[], float | None] = lambda: None
        self.health = Health(timestamp)
        self._tick_pulse = self.health.pulses.add("heartbeat", STUCK_SECONDS)
        self.port = PacketPort(data, self._refuse)
        self._blob_port = PacketPort(control, self._refuse)
        self.blobs = BlobClient(self._blob_port, site=site, node=node, boot=boot, store=store)
        self.shelf = Shelf(
            store, self.blobs.fetch, threads=threads, slowdown=slowdown, limit_bytes=limit_bytes, trust=self.trust
        )  # fmt: skip
        self.links = LinkBook(self.port, control, site=site, node=node, boot=boot)
        self.broker_rtt_s: float | None = None
        self.last_echo = float("-inf")
        self._concurrency = concurrency
        self._reachable = tier == "device"
        self._presence_lock = threading.RLock()
        self._started = time.monotonic()
        stopwatch = Stopwatch(threads, slowdown)
        self.blocks = Refresher(
            self.shelf,
            stopwatch=stopwatch,
            tell=self._tell_profile,
            count=self.count,
            pulse=self.health.pulses.add("blocks", STUCK_SECONDS),
            name=f"splitbus-{node}-blocks",
        )
        self._orders = Orders(
            Identity(node, boot, tier, software()),
            site=site,
            control=control,
            shelf=self.shelf,
            store=store,
            stopwatch=stopwatch,
            pulse=self.health.pulses.add("orders", LONG_SECONDS),
            alert=self.alert,
            guarded=self._guarded,
            blocks=self.blocks,
            tell_profile=self._tell_profile,
        )
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._alerted: Counter[str] = Counter()
        self._ticking = threading.Thread(target=self._tick_loop, name=f"splitbus-{node}-tick", daemon=True)

    @staticmethod
    def lost(site: str, node: str, boot: str, tier: Tier) -> tuple[str, bytes]:
        """Topic and payload of the last will."""
        status = NodeStatus(state="lost", node=node, boot=boot, tier=tier, reason="the broker lost the connection")
        return STATUS.at(site, node=node), status.to_json()

    def start(self) -> None:
        """Subscribe, say who we are, start the threads."""
        self._subscribe(WORK.at(self.site, node=self.node), self._on_work, signed=True)
        self._subscribe(PEERS.at(self.site, node=self.node), self._on_peers, signed=True)
        self.control.subscribe(ECHO.at(self.site, node=self.node), self._on_echo)
        self._subscribe(STATUS.at(self.site, node=self.node), self._on_own_status)
        look_after_each_other(self.control, self.data)
        self.tell_slices()
        self.data.watch(self._on_connection)
        if self.tier == "device":
            self.tell_presence()
        self._ticking.start()
        self._orders.start()
        self.blocks.start()

    def _on_connection(self, connected: bool) -> None:  # noqa: FBT001 - the Bus's signature
        """At every connect: the broker may have another limit, the network may be another one.

        A worker that frames cannot reach is lost, whoever still hears it on the other connection.
        """
        if connected:
            self._tell_caps()
            self.links.suspect_all()
        if self.tier != "device" and not self.stopping:
            self._tell_reach()

    def _tell_reach(self) -> None:
        """By what is true now: of two calls at once, at the start say, the later one may carry the older news."""
        with self._presence_lock:
            before, self._reachable = self._reachable, self.data.connected
            if self._reachable != before:
                self.tell_presence()

    def _tell_caps(self) -> None:
        caps = NodeCaps(
            node=self.node,
            boot=self.boot,
            tier=self.tier,
            cores=os.cpu_count() or 1,
            memory_mb=memory_mb(),
            concurrency=self._concurrency,
            codecs=sorted(known_codecs()),
            max_packet_bytes=self.data.max_packet_bytes,
            temporal=self.tier != "device",
        )
        self.control.publish(CAPS.at(self.site, node=self.node), caps.to_json(), qos=1, retain=True)

    def stop(self, reason: str = "stopped") -> None:
        """Say goodbye and end the threads; the connections are the caller's."""
        self._stopping.set()
        self.blobs.close()
        self._orders.stop()
        self.blocks.stop()
        if self._ticking.is_alive():
            self._ticking.join(5)
        self.tell_status("stopping", reason)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def count(self, what: str, by: int = 1) -> None:
        """Add to a counter that stats publish."""
        with self._lock:
            self.counters[what] = self.counters.get(what, 0) + by

    def alert(self, what: str, reason: str, topic: str | None = None) -> None:
        """Count, log and publish that something went wrong; rate-limited but for the counter."""
        self.count(what)
        self.health.trouble(what, reason)
        self._alerted[what] += 1
        if self._alerted[what] > MAX_ALERTS_PER_SECOND:
            return
        log.warning("%s: %s", what, reason, extra={"kind": what})
        message = Alert(node=self.node, what=what, reason=redacted(reason)[:1000], topic=topic)
        self.control.publish(ALERT.at(self.site, node=self.node), message.to_json())

    def tell_presence(self) -> None:
        """Publish whether frames can come to us, or from us; what was so first is published first."""
        with self._presence_lock:
            self.tell_status(*(("ready",) if self._reachable else ("lost", "frames cannot reach it")))

    def tell_status(self, state: str, reason: str | None = None) -> None:
        """Publish our state."""
        status = NodeStatus.model_validate(
            {
                "state": state,
                "node": self.node,
                "boot": self.boot,
                "tier": self.tier,
                "software": software(),
                "since": timestamp(),
                "reason": reason,
                "seal": self.seal(),
                "pace": self.pace(),
            }
        )
        self.control.publish(STATUS.at(self.site, node=self.node), status.to_json(), qos=1, retain=True)

    def tell_slices(self) -> None:
        """Publish which slices are warm."""
        self._orders.tell()

    def note_failure(self, error: SplitbusError) -> None:
        """Something could not be had: when the disk is full, others are told, and it is looked at until it is not."""
        self._orders.note_failure(error)

    # What arrives

    def _subscribe(self, topic: str, handler: Callable[[bytes], None], *, signed: bool = False) -> None:
        def checked(delivery: Delivery) -> None:
            if not delivery.payload:
                return
            try:
                handler(self.trust.open(topic, delivery.payload) if signed else delivery.payload)
            except DecodeError as error:
                self._refuse(delivery.topic, error)

        self.control.subscribe(topic, checked, qos=1)

    def _refuse(self, topic: str, error: DecodeError) -> None:
        self.alert(error.counter, str(error), topic)

    def _on_own_status(self, payload: bytes) -> None:
        """The will of an earlier start may come after our birth, and what is retained must be true."""
        status = NodeStatus.from_json(payload)
        if status.state == "lost" and status.boot != self.boot and self._reachable and not self.stopping:
            self.tell_presence()

    def _on_work(self, payload: bytes) -> None:
        work = NodeWork.from_json(payload)
        self._terms.admit("an order", work.term)
        self._orders.put(work)

    def _on_peers(self, payload: bytes) -> None:
        peers = Peers.from_json(payload)
        self._terms.admit("a list of peers", peers.term)
        self.links.set_peers(frozenset(peer.node for peer in peers.peers))

    def _on_echo(self, delivery: Delivery) -> None:
        boot, _, sent = delivery.payload.decode("ascii", "replace").partition(" ")
        if boot == self.boot and sent.isdecimal():
            self.last_echo = time.monotonic()
            self.broker_rtt_s = max(0.0, self.last_echo - int(sent) / 1e6)

    # Threads

    def _tick_loop(self) -> None:
        next_stats = 0.0
        while not self._stopping.wait(TICK_SECONDS):
            now = time.monotonic()
            with self._tick_pulse.working("the heartbeat"), self._guarded("the heartbeat"):
                self.links.tick(now)
                if now >= next_stats:
                    next_stats = now + STATS_SECONDS
                    self._alerted.clear()
                    self.shelf.tidy()
                    heartbeat = f"{self.boot} {int(now * 1e6)}".encode()
                    self.control.publish(ECHO.at(self.site, node=self.node), heartbeat)
                    self._tell_stats(now)
                    self._tell_health(now)

    def _tell_profile(self, found: NodeProfile) -> None:
        topic = PROFILE.at(self.site, node=self.node, model=model_key(found.model))
        self.control.publish(topic, found.to_json(), qos=1, retain=True)

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """What goes wrong in here is logged and counted; the thread goes on."""
        try:
            yield
        except Exception as error:
            log.exception("%s failed", what)
            self.alert("errors", f"{what} failed: {error}")

    def _tell_stats(self, now: float) -> None:
        load = self.load()
        with self._lock:
            counters = dict(self.counters)
        stats = NodeStats(
            node=self.node,
            boot=self.boot,
            uptime_s=round(now - self._started, 1),
            busy=round(min(max(load.busy, 0.0), 1.0), 3),
            queued=load.queued,
            concurrency=load.concurrency,
            sessions=len(self.shelf.ready),
            sessions_mb=round(self.shelf.cost_bytes / 2**20, 1),
            broker_rtt_ms=None if self.broker_rtt_s is None else round(self.broker_rtt_s * 1e3, 3),
            counters=counters,
            term=self._terms.term,
        )
        self.control.publish(STATS.at(self.site, node=self.node), stats.to_json(), retain=True)

    @property
    def echo_age_s(self) -> float | None:
        """How long ago a heartbeat came back through the broker; None before the first."""
        return time.monotonic() - self.last_echo if self.last_echo > 0 else None

    def _tell_health(self, now: float) -> None:
        verdict = self.health.verdict(self.echo_age_s)
        if not self.health.is_due(verdict):
            return
        me = Identity(self.node, self.boot, self.tier, software())
        ages = {"oldest_frame": self.load().oldest_s, "echo": self.echo_age_s or 0.0}
        told = self.health.message(verdict, me, uptime_s=now - self._started, ages=ages, counters=dict(self.counters))
        self.control.publish(HEALTH.at(self.site, node=self.node), told.to_json(), retain=HEALTH.retain)


def default_store(name: str) -> Path:
    """Where a node keeps its blobs unless told otherwise: the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "splitbus" / name
