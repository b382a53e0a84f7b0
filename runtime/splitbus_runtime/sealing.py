"""Seals packets for their receivers, opens what was sealed for us, each packet once.

Every pair of nodes has a session in each direction, whose key is agreed on in its first packet (`hpke.py`). A session
is bound to the receiver's era: a word of its present life, told in its status. So a receiver needs to remember only
what came since its start, and nothing on disk.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from splitbus_runtime.hpke import Context, Secret
from splitbus_runtime.keyring import Keyring
from splitbus_runtime.replays import ReplayWindow
from splitbus_schemas.errors import SealError
from splitbus_schemas.limits import MAX_SEALED_NODES
from splitbus_schemas.messages import NodeStatus, SealState
from splitbus_schemas.packet_types import Job, Result, Seal, Sealed
from splitbus_schemas.seal_keys import key_id
from splitbus_schemas.sealed import check_sender, open_packet, seal_packet, session_info

MAX_SESSIONS: Final = 1024
"""That others have with us at once, 2 kB each; one that is not used gives way, and is not taken up again."""

MAX_SESSIONS_OF_NODE: Final = 4
"""A camera has one at a time; a node that begins many ends its own, not those of others."""

MAX_ENDED: Final = 16_384
"""Sessions that ended in this era and are remembered, 2 MB: a new era forgets them, for then none can be opened."""

_Session: TypeAlias = tuple[str, str, bytes]
"""Sender, its key's id, its share."""


def new_era() -> str:
    """A word for a life of a receiver: none is ever taken twice."""
    return secrets.token_hex(8)


@dataclass(slots=True)
class _Incoming:
    context: Context
    window: ReplayWindow = field(default_factory=ReplayWindow)


@dataclass(slots=True)
class _Outgoing:
    state: SealState
    share: bytes
    context: Context
    numbers: Iterator[int] = field(default_factory=itertools.count)


class Sealer:
    """A node's. Thread-safe. `era` None: one of its own making, and a new one when too many sessions have ended;
    `renewed` is then called, so that the node tells it.
    """

    def __init__(
        self,
        secret: Secret,
        keyring: Keyring,
        *,
        site: str,
        node: str,
        era: str | None = None,
        max_ended: int = MAX_ENDED,
    ) -> None:
        self.keyring = keyring
        self.key = key_id(secret.public)
        self.renewed: Callable[[], None] = lambda: None
        self._secret, self._site, self._node = secret, site, node
        self._renews, self._max_ended = era is None, max_ended
        self._era = era or new_era()
        self._lock = threading.Lock()
        self._states: OrderedDict[str, SealState] = OrderedDict()
        self._incoming: OrderedDict[_Session, _Incoming] = OrderedDict()
        self._outgoing: OrderedDict[str, _Outgoing] = OrderedDict()
        self._ended: OrderedDict[_Session, None] = OrderedDict()
        keyring.changed = self._forget_unlisted

    @property
    def state(self) -> SealState:
        """What others have to seal for, as our status tells it."""
        return SealState(key=self.key, era=self._era)

    def note(self, status: NodeStatus) -> None:
        """What another node can open, by its status; a false one only has it refuse what we send."""
        with self._lock:
            if status.seal is not None:
                self._states[status.node] = status.seal
                self._states.move_to_end(status.node)
            else:
                self._states.pop(status.node, None)
            if len(self._states) > MAX_SEALED_NODES:
                self._states.popitem(last=False)

    def reaches(self, node: str) -> bool:
        """Whether a packet can be sealed for a worker."""
        return self._reach(node) is not None

    def _reach(self, node: str) -> SealState | None:
        state, known = self._states.get(node), self.keyring.known
        return state if state is not None and node in known.workers and (node, state.key) in known.keys else None

    # Out

    def seal_for_worker(self, packet: Job | Result, node: str) -> Sealed:
        """Raises SealError for a worker that cannot open it, PayloadTooLargeError."""
        state = self._reach(node)
        if state is None:
            raise SealError("unsealable", f"{node} opens no sealed packets: splitbus seal add {node} --worker")
        return self._seal(packet, node, state)

    def seal_answer(self, result: Result, key: str) -> Sealed:
        """For the frame's device, whose answers are sealed for that key. Raises SealError, PayloadTooLargeError."""
        return self._seal(result, result.frame.device, SealState(key=key, era=result.frame.boot))

    def _seal(self, packet: Job | Result, receiver: str, state: SealState) -> Sealed:
        with self._lock:
            session = self._outgoing.get(receiver)
            if session is None or session.state != state:
                session = self._begin(receiver, state)
            number = next(session.numbers)
        seal = Seal(self._node, self.key, state.era, session.share, number)
        return seal_packet(packet, seal, partial(session.context.seal, number))

    def _begin(self, receiver: str, state: SealState) -> _Outgoing:
        public = self.keyring.known.keys.get((receiver, state.key))
        if public is None:
            raise SealError("unsealable", f"key {state.key} of {receiver} is not in the gateway's list")
        share, context = self._secret.send_to(public, session_info(self._site, self._node, receiver, state.era))
        session = self._outgoing[receiver] = _Outgoing(state, share, context)
        self._outgoing.move_to_end(receiver)
        if len(self._outgoing) > MAX_SESSIONS:
            self._outgoing.popitem(last=False)
        return session

    # In

    def open(self, sealed: Sealed) -> Job | Result:
        """The packet, the first time it comes. Raises SealError."""
        seal = sealed.seal
        name: _Session = (seal.sender, seal.key, seal.share)
        public = self.keyring.known.keys.get((seal.sender, seal.key))
        if public is None:
            raise SealError("unopened", f"key {seal.key} of {seal.sender} is not in the gateway's list")
        if seal.era != self._era:
            raise SealError("unopened", f"{seal.sender} sealed it for an earlier life of {self._node}")
        session = self._incoming.get(name)
        if name in self._ended or (session is not None and not session.window.is_new(seal.number)):
            raise self._replayed(seal)
        if session is None:
            info = session_info(self._site, seal.sender, self._node, seal.era)
            session = _Incoming(self._secret.receive_from(public, seal.share, info))
        packet = open_packet(sealed, partial(session.context.open, seal.number))
        check_sender(packet, seal.sender, is_worker=seal.sender in self.keyring.known.workers)
        self._take(name, session, seal)
        return packet

    def _take(self, name: _Session, session: _Incoming, seal: Seal) -> None:
        """Remember that it came, which only an authentic packet makes us do."""
        with self._lock:
            if seal.era != self._era or name in self._ended:
                raise self._replayed(seal)
            begins = name not in self._incoming
            session = self._incoming.setdefault(name, session)
            self._incoming.move_to_end(name)
            if not session.window.take(seal.number):
                raise self._replayed(seal)
            renewed = begins and self._end_old(seal.sender)
        if renewed:
            self.renewed()

    def _replayed(self, seal: Seal) -> SealError:
        return SealError("replayed", f"packet {seal.number} of a session of {seal.sender} came before")

    def _end_old(self, sender: str) -> bool:
        """Keep to the bounds; whether that took a new era."""
        own = [name for name in self._incoming if name[0] == sender]
        ended = own[: max(0, len(own) - MAX_SESSIONS_OF_NODE)]
        if len(self._incoming) - len(ended) > MAX_SESSIONS:
            ended.append(next(iter(self._incoming)))
        return self._end(ended)

    def _end(self, names: list[_Session]) -> bool:
        for name in names:
            del self._incoming[name]
            self._ended[name] = None
        if len(self._ended) <= self._max_ended:
            return False
        if not self._renews:  # a device: an answer to a frame that is not out any more goes nowhere
            self._ended.popitem(last=False)
            return False
        self._era = new_era()
        self._incoming.clear()
        self._ended.clear()
        return True

    def _forget_unlisted(self) -> None:
        """The list of keys is another one: sessions of keys that it no longer has are over, both ways."""
        keys = self.keyring.known.keys
        with self._lock:
            renewed = self._end([name for name in self._incoming if (name[0], name[1]) not in keys])
            for node in [node for node, out in self._outgoing.items() if (node, out.state.key) not in keys]:
                del self._outgoing[node]
        if renewed:
            self.renewed()
