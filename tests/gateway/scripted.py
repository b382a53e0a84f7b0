"""A site for tests of the controller: its clock, and nodes that answer the gateway as real ones do, from a script."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import onnx
from tests import models

from splitbus_gateway.alerts import Alerts
from splitbus_gateway.controller import Catalogue, Controller
from splitbus_gateway.epochs import Epochs
from splitbus_gateway.registry import Registry
from splitbus_gateway.stream import StreamSettings
from splitbus_runtime.bus import Delivery, MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.ids import model_key

SITE = "home"


def pyramid() -> onnx.ModelProto:
    """Convolutions that make the tensors ever smaller: work enough that a slow device wants help."""
    layers = [("a", 3, 16, 2), ("b", 16, 32, 2), ("c", 32, 64, 2), ("d", 64, 64, 2)]
    nodes, weights, before = [], [], "x"
    for name, inn, out, stride in layers:
        nodes += [models.conv(before, name, strides=[stride, stride]), models.node("Relu", [name], [f"{name}r"])]
        weights += models.conv_weights(name, out, inn)
        before = f"{name}r"
    nodes += [models.node("GlobalAveragePool", [before], ["p"]), models.node("Flatten", ["p"], ["f"])]
    nodes += [models.node("Gemm", ["f", "g.w", "g.b"], ["y"])]
    weights += [models.weight("g.w", 64, 10), models.weight("g.b", 10)]
    return models.model(nodes, [models.value("x", [1, 3, 128, 128])], [models.value("y", [1, 10])], weights)


def register(state: Path, name: str) -> Registry:
    """A registry with the pyramid in it, its times those of a quiet machine: plans of tests must not depend on load."""
    registry = Registry(state, samples=2)
    registry.add(name, models.save(pyramid(), state))
    record = registry.get(name)
    sizes = [size.model_copy(update={"encode_ms": 0.02, "decode_ms": 0.02}) for size in record.sizes]
    quiet = record.model_copy(update={"whole_ms": 1.0, "sizes": sizes})
    (state / "models" / f"{name}.json").write_text(quiet.model_dump_json(exclude_none=True))
    assert registry.get(name).whole_ms == 1.0
    return registry


class Node:
    """A scripted node: gets its slices ready at once and profiles what it is asked to, `slowness` times the reference.

    `stuck` leaves orders undone, `broken` fails them, `full` says that want of room is why.
    `shares` are the blocks' parts of the whole, even without them.
    """

    def __init__(self, broker: MemoryBroker, name: str, tier: str, whole_ms: float, boot: str = "b1") -> None:
        self.name, self.tier, self.whole_ms, self.boot = name, tier, whole_ms, boot
        self.stuck = self.broken = self.full = False
        self.shares: list[float] = []
        self.work = m.NodeWork()
        self.peers: list[str] = []
        self.profiled: set[str] = set()
        self.bus = broker.connect()
        caps = m.NodeCaps.model_validate(
            {"node": name, "boot": boot, "tier": tier, "cores": 1, "memory_mb": 1, "codecs": sorted(CODECS),
             "max_packet_bytes": 2**24}
        )  # fmt: skip
        self.send(topics.CAPS, caps, node=name)
        self.status("ready")
        self.bus.subscribe(topics.WORK.at(SITE, node=name), self._on_work)
        self.bus.subscribe(topics.PEERS.at(SITE, node=name), self._on_peers)

    def send(self, kind: topics.Topic, message: m.Message, **fields: str) -> None:
        self.bus.publish(kind.at(SITE, **fields), message.to_json(), retain=kind.retain)

    def status(self, state: str, pace: float | None = None) -> None:
        status = {"state": state, "node": self.name, "boot": self.boot, "tier": self.tier, "pace": pace}
        self.send(topics.STATUS, m.NodeStatus.model_validate(status), node=self.name)

    def link(self, peer: str, mbit: float, rtt_ms: float = 4.0, confidence: float = 0.9) -> None:
        report = m.LinkReport(
            node=self.name, peer=peer, rtt_ms=rtt_ms, up_mbit=mbit, down_mbit=mbit, confidence=confidence, samples=9
        )
        self.send(topics.LINK, report, node=self.name, peer=peer)

    def stats(self, busy: float, queued: int = 0) -> None:
        stats = m.NodeStats(node=self.name, boot=self.boot, uptime_s=1.0, busy=busy, queued=queued)
        self.send(topics.STATS, stats, node=self.name)

    def wants(self, model: str, state: str = "active", plan: str = "none", epoch: int = 0, **more: Any) -> None:
        message = m.PlanState.model_validate(
            {"node": self.name, "boot": self.boot, "plan": plan, "epoch": epoch, "state": state} | more
        )
        self.send(topics.PLAN_STATE, message, node=self.name, model=model_key(model))

    def load(self) -> None:
        """Do what was ordered."""
        ready = [] if self.broken else self.work.slices
        failed = dict.fromkeys(self.work.slices, "out of memory") if self.broken else {}
        full = "no space left" if self.full else None
        state = m.SliceState(node=self.name, boot=self.boot, ready=ready, failed=failed, full=full)
        self.send(topics.SLICES, state, node=self.name)

    def _on_work(self, delivery: Delivery) -> None:
        self.work = m.NodeWork.from_json(delivery.payload)
        for request in self.work.profiles:
            self._profile(request)
        if not self.stuck:
            self.load()

    def _profile(self, request: m.ProfileRequest) -> None:
        if request.whole in self.profiled:
            return
        self.profiled.add(request.whole)
        count = len(request.cuts)
        shares = self.shares or [1 / count] * count
        profile = m.NodeProfile(
            node=self.name, boot=self.boot, model=request.model, cuts=request.cuts,
            block_ms=[self.whole_ms * share for share in shares], spread_ms=[0.0] * count, runs=7,
            whole_ms=self.whole_ms,
        )  # fmt: skip
        self.send(topics.PROFILE, profile, node=self.name, model=model_key(request.model))

    def _on_peers(self, delivery: Delivery) -> None:
        self.peers = [peer.node for peer in m.Peers.from_json(delivery.payload).peers]


class Site:
    """A controller with a clock that tests turn, and everything that was published."""

    def __init__(
        self, broker: MemoryBroker, catalogue: Catalogue, state: Path, settings: StreamSettings | None = None
    ) -> None:
        self.broker, self.now = broker, 1000.0
        self.silent: set[str] = set()
        self.bus = broker.connect()
        self.log: list[Delivery] = []
        self.inbox: deque[Delivery] = deque()
        self.alerts = Alerts(self.bus, site=SITE, node="gateway", clock=lambda: self.now)
        self.controller = Controller(
            self.bus, catalogue, Epochs(state / "epochs.json"), self.alerts,
            site=SITE, settings=settings, timestamp=lambda: "2026-01-01T00:00:00+00:00", now=self.now,
        )  # fmt: skip
        watcher = broker.connect()
        for kind in (topics.WORK, topics.PLAN, topics.DECISION, topics.PEERS, topics.ALERT):
            watcher.subscribe(kind.at(SITE, **dict.fromkeys(kind.fields, "+")), self.log.append)
        self.log.clear()
        self.bus.subscribe(self.controller.filters, self.inbox.append)

    def run(self, seconds: float = 1.0) -> None:
        """Let time pass."""
        for _ in range(round(seconds / 0.05)):
            self.now = round(self.now + 0.05, 3)
            while self.inbox:
                self.controller.handle(self.inbox.popleft(), self.now)
            self._hear()
            self.controller.step(self.now)

    def _hear(self) -> None:
        """All nodes but the silent ones send their statistics."""
        for name, view in self.controller.world.nodes.items():
            if name not in self.silent:
                view.heard_at = self.controller._clock.now

    def said(self, kind: topics.Topic) -> list[Any]:
        """Messages of a kind, oldest first."""
        assert kind.message is not None
        return [kind.message.from_json(d.payload) for d in self.log if kind.match(d.topic) and d.payload]

    def plan(self, model: str) -> m.Plan:
        """What cam1 is to do."""
        plan = self.retained(topics.PLAN, node="cam1", model=model_key(model))
        assert isinstance(plan, m.Plan)
        return plan

    def decision(self, model: str) -> m.Decision:
        """And why."""
        decision = self.retained(topics.DECISION, node="cam1", model=model_key(model))
        assert isinstance(decision, m.Decision)
        return decision

    def retained(self, kind: topics.Topic, **fields: str) -> Any:
        """What a newcomer would get."""
        assert kind.message is not None
        found = self.broker.retained.get(kind.at(SITE, **fields))
        return kind.message.from_json(found.payload) if found else None
