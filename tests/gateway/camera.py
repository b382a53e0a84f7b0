"""A camera on simulated time: ten frames a second through a link of given rate, measured by the real link book."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.gateway.scripted import SITE, Node, Site

from splitbus_device.courier import TRAIN_SECONDS
from splitbus_runtime.agent import TICK_SECONDS
from splitbus_runtime.bus import MemoryBroker
from splitbus_runtime.linkbook import PROBE_BYTES, LinkBook
from splitbus_runtime.transport import PacketPort, Parcel
from splitbus_schemas.limits import TRAIN_MIN_BYTES
from splitbus_schemas.messages import Plan
from splitbus_schemas.packet_types import Echo, Probe
from splitbus_schemas.topics import JOB

FRAME_S = 0.1
STEP_S = 0.05


@dataclass
class Weather:
    """What a link does: Mbit/s at a time, and how single measurements of it lie beside the truth."""

    mbit: Callable[[float], float]
    rtt_s: float = 0.004
    jitter: float = 0.0
    """Measurements lie so far to both sides, evenly."""
    outliers: float = 0.0
    """This share of them is off by up to 30 times, either way."""
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def measured(self, at: float) -> float:
        """One measurement of the rate."""
        if self._random.random() < self.outliers:
            return self.mbit(at) * math.exp(math.log(30.0) * self._random.uniform(-1, 1))
        return self.mbit(at) * self._random.uniform(1 - self.jitter, 1 + self.jitter)

    def rtt(self) -> float:
        """One measurement of the round trip."""
        return self.rtt_s * self._random.uniform(1 - self.jitter, 1 + self.jitter)


class Camera:
    """Drives a site: frames go by the plan of now, their trains and the probes' become samples when they would."""

    def __init__(self, site: Site, node: Node, peers: list[str], weather: Weather, plan: Callable[[], Plan]) -> None:
        self.site, self.weather, self.plan = site, weather, plan
        self.frames = 0
        wires = MemoryBroker()
        port = PacketPort(wires.connect(), lambda _topic, _error: None)
        self.book = LinkBook(port, node.bus, site=SITE, node=node.name, boot=node.boot)
        self.book.set_peers(frozenset(peers))
        self._coming: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._next_frame = self._next_tick = self._now = site.now
        self._trained = float("-inf")
        for peer in peers:
            far = PacketPort(wires.connect(), lambda _topic, _error: None)
            far.receive(JOB.at(SITE, node=peer, device=node.name), self._on_probe)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Let time pass, at most until something is so; how long that took."""
        begun = self.site.now
        while self.site.now - begun < seconds - 1e-9 and not until():
            self._pass(self.site.now)
            self.site.run(STEP_S)
        return self.site.now - begun

    def _pass(self, now: float) -> None:
        self._now = now
        if now >= self._next_frame:
            self._next_frame = now + FRAME_S
            self._send_frame(now)
        while self._coming and self._coming[0][0] <= now:
            self._now, _, happens = heapq.heappop(self._coming)
            happens(self._now)
        self._now = now
        if now >= self._next_tick:
            self._next_tick = now + TICK_SECONDS
            self.book.tick(now)

    def _later(self, at: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._coming, (at, next(self._order), happens))

    def _send_frame(self, now: float) -> None:
        plan = self.plan()
        if plan.is_local:
            return
        self.frames += 1
        size, peer = plan.cuts[0].bytes, plan.routes[0][0].node
        if now - self._trained <= TRAIN_SECONDS or size < TRAIN_MIN_BYTES:
            return
        self._trained = now
        up_s, rtt_s = size * 8e-6 / self.weather.measured(now), self.weather.rtt()

        def answered(at: float) -> None:
            self.book.note_up(peer, size, up_s, at)
            self.book.note_rtt(peer, rtt_s, at)

        self._later(now + up_s + rtt_s, answered)

    def _on_probe(self, parcel: Parcel) -> None:
        """The peer's echo: its trains take what the link makes of them."""
        probe, now = parcel.packet, self._now
        assert isinstance(probe, Probe)
        peer = parcel.topic.split("/")[4]
        up_s, down_s = (PROBE_BYTES * 8e-6 / self.weather.measured(now) for _ in range(2))
        echo = Echo(probe.id, peer, 0, PROBE_BYTES, int(up_s * 1e6), b"")

        def came(at: float) -> None:
            self.book.take_echo(echo, Parcel("", echo, at, PROBE_BYTES, PROBE_BYTES, down_s))

        self._later(now + up_s + self.weather.rtt() + down_s, came)
