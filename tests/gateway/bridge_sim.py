"""Two brokers of one site, one gateway at each, and the bridge between them: cut, held up, joined again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.gateway.lease_sim import SECONDS, Gone

from splitbus_gateway.bridge import BEAT_S, Bridge
from splitbus_gateway.lease import Candidate, Saying
from splitbus_schemas.messages import Lease

TICK_S = 0.05


@dataclass(frozen=True)
class Beat:
    """The uptime of the broker on the other side."""


@dataclass
class Shore:
    """A broker with its gateway; the gateway reads and says everything at once."""

    name: str
    boot: str = ""
    floor: int = 0
    led_beyond: bool = False
    waits: bool = True
    """`when_cut`: whether a cut is waited out."""
    retained: Lease | None = None
    status: dict[str, Gone] = field(default_factory=dict)
    alive: bool = False
    outwards: deque[Saying | Gone | Beat] = field(default_factory=deque)
    """What is on its way over the bridge."""

    def start(self, boot: str, now: float, *, bridge_up: bool) -> None:
        self.boot, self.alive, self.bridge = boot, True, Bridge()
        self.candidate = Candidate(
            self.name, boot, seconds=SECONDS, floor=self.floor, side=self.name,
            bridge=self.bridge if self.waits else None, led_beyond=self.led_beyond,
        )  # fmt: skip
        self.bridge.note_state(now, up=bridge_up)
        for gone in self.status.values():
            self.candidate.note_status(gone.node, gone.boot, gone=gone.gone)
        self.candidate.connected(now)
        self.tell(Gone(self.name, boot, gone=False))
        if self.retained:
            self.say(self.candidate.hear(self.retained, now), now)

    def kill(self) -> None:
        """Its broker tells so at once; what it wrote down is still there."""
        if self.alive:
            self.floor, self.led_beyond = self.candidate.floor, self.candidate.led_beyond
            self.alive = False
            self.tell(Gone(self.name, self.boot, gone=True))

    def tell(self, gone: Gone) -> None:
        """A status of our own gateway."""
        self.status[gone.node] = gone
        self.outwards.append(gone)

    def say(self, said: list[Saying], now: float) -> None:
        """Everything comes back at once, and crosses."""
        for saying in said:
            self.retained = saying.lease if saying.retain else self.retained
            self.outwards.append(saying)
            self.say(self.candidate.hear(saying.lease, now), now)

    def take(self, item: Saying | Gone | Beat, now: float) -> None:
        """From the other side."""
        if isinstance(item, Saying):
            self.retained = item.lease if item.retain else self.retained
            if self.alive:
                self.say(self.candidate.hear(item.lease, now), now)
        elif isinstance(item, Gone):
            self.status[item.node] = item
            if self.alive:
                self.candidate.note_status(item.node, item.boot, gone=item.gone)
        elif self.alive:
            self.bridge.note_beat(now)


class Strait:
    """Both shores; `link` is `joined`, `cut`, or `mute`: nothing arrives, and nobody is told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.shores = {name: Shore(name) for name in ("a", "b")}
        self.link = "cut"
        self._next_beat = self.now

    def other(self, shore: Shore) -> Shore:
        return self.shores["b" if shore.name == "a" else "a"]

    def set(self, link: str) -> None:
        """What is on its way is lost by a cut alone; after one, each broker sends what it retains."""
        before, self.link = self.link, link
        for shore in self.shores.values():
            if link == "cut" or (before == "cut" and link == "joined"):
                shore.outwards.clear()
            if shore.alive and link != "mute":
                shore.bridge.note_state(self.now, up=link == "joined")
        if before == "cut" and link == "joined":
            for shore in self.shores.values():
                if shore.retained:
                    shore.outwards.append(Saying(shore.retained, retain=True))
                if shore.name in shore.status:
                    shore.outwards.append(shore.status[shore.name])

    def tick(self) -> None:
        self.now += TICK_S
        if self.now >= self._next_beat:
            self._next_beat = self.now + BEAT_S
            for shore in self.shores.values():
                shore.outwards.append(Beat())
        for shore in self.shores.values():
            if shore.alive:
                shore.say(shore.candidate.step(self.now), self.now)
        if self.link == "joined":
            for shore in self.shores.values():
                crossing, shore.outwards = shore.outwards, deque()
                for item in crossing:
                    self.other(shore).take(item, self.now)

    def run(self, seconds: float) -> Iterator[list[str]]:
        """Who leads, tick by tick."""
        for _ in range(round(seconds / TICK_S)):
            self.tick()
            yield self.leaders()

    def pass_by(self, seconds: float) -> list[str]:
        """Who leads at the end."""
        *_, last = self.run(seconds)
        return last

    def leaders(self) -> list[str]:
        return [name for name, shore in self.shores.items() if shore.alive and shore.candidate.leads(self.now)]
