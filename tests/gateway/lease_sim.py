"""Candidates for one lease over a broker that orders, delays, retains, loses connections and speaks last wills."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from splitbus_gateway.lease import Candidate, Saying
from splitbus_schemas.messages import Lease

SECONDS = 3.0


@dataclass
class Gone:
    """The broker's last word on a run of a gateway."""

    node: str
    boot: str
    gone: bool


@dataclass
class Player:
    """A candidate with its connection: what it said and the broker has not taken, what it has not read yet."""

    candidate: Candidate
    online: bool = False
    asleep: bool = False
    out: deque[Saying] = field(default_factory=deque)
    inbox: deque[Lease | Gone] = field(default_factory=deque)
    terms: set[int] = field(default_factory=set)

    def put(self, said: list[Saying]) -> None:
        self.out.extend(said)


class Sea:
    """All players and the broker; every call is one event, and time passes only by `wait`."""

    def __init__(self, names: list[str], *, wills: bool = True) -> None:
        self.now = 100.0
        self.wills = wills
        self.retained: Lease | None = None
        self.players = {name: Player(Candidate(name, f"{name}1", seconds=SECONDS)) for name in names}
        self.taken: list[Lease] = []

    # Events

    def connect(self, name: str) -> None:
        player = self.players[name]
        if not player.online:
            player.online = True
            if self.wills:
                self._tell_all(Gone(name, player.candidate.boot, gone=False))
            if self.retained:
                player.inbox.append(self.retained)
            player.candidate.connected(self.now)

    def cut(self, name: str) -> None:
        """The broker ends the connection: what is on its way is lost, the will goes out; the player hears of it."""
        player = self.players[name]
        if player.online:
            player.online = False
            player.out.clear()
            player.inbox.clear()
            player.candidate.disconnected()
            if self.wills:
                self._tell_all(Gone(name, player.candidate.boot, gone=True))

    def kill(self, name: str, boot: str) -> None:
        """And start it again, as another run."""
        self.cut(name)
        old = self.players[name]
        fresh = Player(Candidate(name, boot, seconds=SECONDS, floor=old.candidate.floor))
        self.players[name] = fresh

    def wipe(self) -> None:
        """The broker restarts and has forgotten everything."""
        for name in self.players:
            self.cut(name)
        self.retained = None

    def take(self, name: str) -> None:
        """The broker takes the next message of a player, and puts it into everybody's inbox."""
        player = self.players[name]
        if player.online and player.out:
            saying = player.out.popleft()
            lease = saying.lease
            self.retained = lease if saying.retain else self.retained
            self.taken.append(lease)
            for other in self.players.values():
                if other.online:
                    other.inbox.append(lease)

    def read(self, name: str) -> None:
        """A player reads its next message."""
        player = self.players[name]
        if player.asleep or not player.inbox:
            return
        arrived = player.inbox.popleft()
        if isinstance(arrived, Gone):
            player.candidate.note_status(arrived.node, arrived.boot, gone=arrived.gone)
        else:
            player.put(player.candidate.hear(arrived, self.now))
        self._note(name)

    def act(self, name: str) -> None:
        """A player looks at its clock."""
        player = self.players[name]
        if not player.asleep:
            player.put(player.candidate.step(self.now))
        self._note(name)

    def sleep(self, name: str) -> None:
        """SIGSTOP, and SIGCONT."""
        self.players[name].asleep = not self.players[name].asleep

    def wait(self, seconds: float) -> None:
        self.now += seconds

    # What is to be known

    def leaders(self) -> list[str]:
        return [name for name, player in self.players.items() if player.candidate.leads(self.now)]

    def calm(self, seconds: float = 4 * SECONDS) -> None:
        """All are awake and connected, and nothing takes long."""
        for name, player in self.players.items():
            player.asleep = False
            self.connect(name)
        end = self.now + seconds
        while self.now < end:
            for name in self.players:
                self.act(name)
                self.take(name)
            for name, player in self.players.items():
                while player.inbox:
                    self.read(name)
            self.wait(0.05)

    def _note(self, name: str) -> None:
        player = self.players[name]
        if player.candidate.term:
            player.terms.add(player.candidate.term)

    def _tell_all(self, gone: Gone) -> None:
        for other in self.players.values():
            if other.online:
                other.inbox.append(gone)
