"""What splitbus does for faults alone, as a table, and how a running client or worker is made to go without each.

A part is taken out by giving its object a class in front of its own, whose methods do nothing, or by putting something
that does nothing in a function's place. Nothing here is fit for use: without these parts the first fault ends the
service. Only benchmarks do so; the product has no such switch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

from splitbus_device import InferenceSession, courier, returned
from splitbus_device.flights import Out
from splitbus_device.policy import Wait
from splitbus_runtime import mqtt, shelf
from splitbus_runtime.agent import Agent
from splitbus_schemas import _kinds, packet
from splitbus_schemas.packet_types import Tensor
from splitbus_schemas.reader import Reader
from splitbus_worker import worker as worker_module
from splitbus_worker.admission import State
from splitbus_worker.worker import Worker

PROTECTIONS: Final = {
    "checksum": "CRC-32 of every packet, at both ends",
    "bounds": "every field of a header, every shape and length within its limits, before anything is allocated",
    "flights": "frames under way: late, double and refused answers, second routes, a bounded number",
    "deadlines": "when to try another route or answer locally; messages that expire at the broker",
    "breaker": "which nodes are gone, or let frames wait, and which are heard of",
    "seals": "whose frames and answers have to be sealed, and by whom they were",
    "replays": "the memory of frames that ran already",
    "senders": "whether frame, reply topic and job topic name one device",
    "allowance": "the bucket of messages of each device",
    "admission": "whether a frame can be in time here, and is for this node",
    "line": "turns of devices, and a bounded line in which the newest wins",
    "pulses": "what each loop is at, for the watchdog; the heartbeat through the broker",
    "statistics": "counters, the stream's and the node's figures, health",
    "drain": "bytes that nobody acknowledges, so that a slow link is not taken for a dead one",
}
"""All of them, and what each is."""

FOREVER: Final = 1e9
_NOTHING: Final = contextlib.nullcontext()


@dataclass(frozen=True)
class Dull:
    """An object that goes without: `front` comes before its own class."""

    name: str
    thing: object
    front: type


@dataclass(frozen=True)
class Swap:
    """An attribute of a module or class, and what stands in for it."""

    name: str
    holder: Any
    attribute: str
    stand_in: object


Part: TypeAlias = Dull | Swap


class Switches:
    """The protections of one process; all are on until `without` is called, and again after `without(())`."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._dulls = [part for part in parts if isinstance(part, Dull)]
        self._swaps = [part for part in parts if isinstance(part, Swap)]
        for part in self._dulls:
            _check(part)
        self._own = {id(part.thing): type(part.thing) for part in self._dulls}
        self._real = {id(part): getattr(part.holder, part.attribute) for part in self._swaps}
        self._made: dict[tuple[type, ...], type] = {}

    @property
    def names(self) -> frozenset[str]:
        """What can be switched off in this process."""
        return frozenset([part.name for part in self._dulls] + [part.name for part in self._swaps])

    def without(self, names: Collection[str]) -> None:
        """Go without these, and with all others. To be called while no frame is under way."""
        for thing in {id(part.thing): part.thing for part in self._dulls}.values():
            fronts = tuple(part.front for part in self._dulls if part.thing is thing and part.name in names)
            thing.__class__ = self._class((*fronts, self._own[id(thing)]))
        for swap in self._swaps:
            setattr(swap.holder, swap.attribute, swap.stand_in if swap.name in names else self._real[id(swap)])

    def _class(self, bases: tuple[type, ...]) -> type:
        if len(bases) == 1:
            return bases[0]
        if bases not in self._made:
            self._made[bases] = type("Without", bases, {})
        return self._made[bases]


def _check(dull: Dull) -> None:
    """Raises AttributeError when what stands in front replaces nothing: the product has changed, and this table not."""
    gone = [name for name, what in vars(dull.front).items() if callable(what) and not hasattr(type(dull.thing), name)]
    if gone:
        raise AttributeError(f"{dull.name}: {type(dull.thing).__name__} has no {', '.join(gone)} to go without")


def of_client(session: InferenceSession) -> Switches:
    """Those of a session that is connected and follows a plan."""
    uplink: Any = session._uplink  # noqa: SLF001 - what a user cannot switch off
    return Switches(
        [
            *_of_node(uplink._agent),  # noqa: SLF001
            Dull("breaker", uplink, _Deaf),
            Dull("breaker", uplink._nodes, _AllThere),  # noqa: SLF001
            Dull("breaker", uplink._nodes.breaker, _NeverRests),  # noqa: SLF001
            Dull("flights", uplink._flights, _OneAttempt),  # noqa: SLF001
            Dull("seals", uplink._envelope, _NoEnvelope),  # noqa: SLF001
            Dull("statistics", uplink.tally, _NoTally),
            Swap("deadlines", courier, "latest_start", lambda *_: FOREVER),
            Swap("deadlines", courier, "next_step", lambda *_: _PATIENT),
            Swap("bounds", returned, "_fits", lambda *_: True),
        ]
    )


def of_worker(worker: Worker) -> Switches:
    """Those of a worker that has started."""
    serving: Any = worker
    return Switches(
        [
            *_of_node(worker.agent),
            Dull("seals", serving._gate, _NoGate),  # noqa: SLF001
            Dull("replays", serving._gate._recent, _NoMemory),  # noqa: SLF001
            Dull("senders", worker, _AllHonest),
            Dull("allowance", serving._allowance, _AllAllowed),  # noqa: SLF001
            Dull("admission", worker, _NoState),
            Swap("admission", worker_module, "admit", _nothing),
            Swap("admission", worker_module, "check_route", _nothing),
            Dull("line", serving._line, _FirstCome),  # noqa: SLF001
        ]
    )


def _of_node(agent: Agent) -> Iterator[Part]:
    """What client and worker have in common."""
    yield Swap("checksum", packet, "zlib", SimpleNamespace(crc32=lambda *_: 0))
    yield Swap("bounds", packet, "Reader", _Trusting)
    yield Swap("bounds", _kinds, "read_tensors", _tensors)
    yield Swap("bounds", _kinds, "_known_coding", lambda coding: coding)
    yield Swap("bounds", _kinds, "_check_length", _nothing)
    yield Swap("bounds", shelf.Slice, "check", _nothing)
    yield Swap("drain", mqtt, "unacknowledged", lambda _: 0)
    yield Dull("statistics", agent, _Uncounted)
    yield Dull("deadlines", agent.port, _NoExpiry)
    for pulse in agent.health.pulses._pulses.values():  # noqa: SLF001
        yield Dull("pulses", pulse, _NoPulse)
    yield Dull("pulses", agent.control, _NoHeartbeat)  # no frame goes there


def _nothing(*_args: object, **_named: object) -> None:
    """Allowed."""


# The client's


_PATIENT: Final = Wait(FOREVER)


class _Deaf:
    def _hear(self, _parcel: Any) -> None:
        """Whoever it was."""


class _AllThere:
    def usable(self, routes: Any, _now: float) -> Any:
        return routes


class _NeverRests:
    def strike(self, *_: Any) -> bool:
        return False

    def fine(self, *_: Any) -> None:
        """Nothing to forget."""

    def sound(self, *_: Any) -> bool:
        return False

    def rests(self, *_: Any) -> bool:
        return False


class _OneAttempt:
    """Answers find their frame, and that is all."""

    _out: dict[int, Out]

    def begin(self, seq: int, _now: float) -> Out:
        out = self._out[seq] = Out(seq, alone=not self._out)
        return out

    def sending(self, out: Out, nodes: tuple[str, ...], now: float) -> None:
        out.sent.append(now)
        out.nodes = nodes

    def end(self, out: Out, _now: float) -> None:
        del self._out[out.seq]

    def take(self, parcel: Any) -> bool:
        out = self._out[parcel.packet.frame.seq]
        out.parcel = parcel
        out.news.set()
        return True


class _NoEnvelope:
    def usable(self, routes: Any) -> Any:
        return routes

    def close(self, job: Any) -> Any:
        return job

    def open(self, parcel: Any) -> Any:
        return parcel


class _NoTally:
    def add(self, _answer: Any) -> None:
        """Nobody asks."""


# The worker's


class _NoGate:
    """Nobody seals; whether a frame came before is still asked."""

    _recent: Any

    def pass_(self, job: Any) -> Any:
        if self._recent.ran(job):
            raise AssertionError("no frame comes twice here")
        return job

    def for_device(self, result: Any, _key: str) -> Any:
        return result


class _NoMemory:
    def ran(self, _job: Any) -> bool:
        return False

    def note(self, _job: Any) -> None:
        """Forgotten."""


class _AllHonest:
    def _is_honest(self, *_: Any) -> bool:
        return True


class _AllAllowed:
    def take(self, *_: Any) -> bool:
        return True


class _NoState:
    def _state(self, _job: Any) -> State:
        return _ANY_STATE


_ANY_STATE: Final = State("")


class _FirstCome:
    """First in, first out, without end."""

    _waiting: Any
    _signal: Any
    running: int
    ahead_us: int

    def join(self, ticket: Any) -> None:
        self.running = self.ahead_us = 0  # a `take` that began before has counted
        self._waiting.append(ticket)
        self._signal.put(True)

    def take(self) -> Any:
        going_on = self._signal.get()
        if not isinstance(self, _FirstCome):  # switched on again, while we waited
            self._signal.put(going_on)
            return self.take()
        return self._waiting.pop(0) if going_on else None

    def done(self, _ticket: Any) -> None:
        """Next."""

    def _note_turn(self, _device: str) -> None:
        """For a `take` that began before."""

    def _leave(self, ticket: Any) -> None:
        self._waiting.remove(ticket)


# Both


class _Trusting(Reader):
    """Takes a header's values for what they should be."""

    __slots__ = ()

    def integer(self, key: str | int, limit: int = 0) -> int:  # noqa: ARG002 - the signature of Reader
        value: int = self._values[key]
        return value

    def flag(self, key: str | int) -> bool:
        value: bool = self._values[key]
        return value

    def _text(self, key: str | int) -> str:
        value: str = self._values[key]
        return value

    id = sha256 = word = name = text = _text

    def reply_topic(self, key: str | int, node: str) -> str:  # noqa: ARG002 - the signature of Reader
        return self._text(key)

    def sizes(self, key: str | int, limit: int) -> tuple[int, ...]:  # noqa: ARG002 - the signature of Reader
        return tuple(self._values[key])

    def integers(self, first: int, last: int, limit: int = 0) -> list[int]:  # noqa: ARG002 - the signature of Reader
        values: list[int] = self._values[first:last]
        return values

    def row(self, key: str | int, columns: int) -> Reader:  # noqa: ARG002 - the signature of Reader
        return _Trusting(self._values[key], "")

    def rows(self, key: str | int, columns: int, limit: int) -> list[Reader]:  # noqa: ARG002 - the signature of Reader
        return [_Trusting(entry, "") for entry in self._values[key]]


def _tensors(reader: Reader, body: memoryview) -> tuple[Any, ...]:
    """A header's tensors, as they say they are."""
    tensors, offset = [], 0
    for name, dtype, shape, coding, length, final in reader._values["tensors"]:  # noqa: SLF001
        tensors.append(Tensor(name, dtype, tuple(shape), coding, body[offset : offset + length], final))
        offset += length
    return tuple(tensors)


class _Uncounted:
    def count(self, _what: str, _by: int = 1) -> None:
        """One more."""

    def _tell_stats(self, _now: float) -> None:
        """Nobody asks."""

    def _tell_health(self, _now: float) -> None:
        """Nobody asks."""


class _NoExpiry:
    def send(self, topic: str, packet: Any, *, expiry_s: int | None = None, **named: Any) -> Any:  # noqa: ARG002
        return super().send(topic, packet, **named)  # type: ignore[misc]  # PacketPort's, behind it


class _NoPulse:
    def working(self, _what: object) -> contextlib.nullcontext[None]:
        return _NOTHING


class _NoHeartbeat:
    def publish(self, topic: str, payload: bytes, **named: Any) -> Any:
        if topic.endswith("/echo"):
            return True
        return super().publish(topic, payload, **named)  # type: ignore[misc]  # MqttBus's, behind it
