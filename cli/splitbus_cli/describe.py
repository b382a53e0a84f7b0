"""Messages of the bus as lines that people can read. Pure: whatever arrives gives a line, never an error."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from splitbus_cli.text import milliseconds, printable, shape, shortened, size
from splitbus_runtime.bus import Delivery
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.messages import decode_message
from splitbus_schemas.packet import decode
from splitbus_schemas.packet_types import (
    BlobPiece,
    Echo,
    Job,
    Packet,
    Probe,
    Refusal,
    Result,
    Sealed,
    Spent,
    Tensor,
)
from splitbus_schemas.parts import PART_MAGIC, Assembler
from splitbus_schemas.topics import ECHO, parse_topic

MAX_TOPICS: Final = 64
"""Topics whose parts are put together at once; each may hold up to twice the largest packet."""

PREVIEW_BYTES: Final = 48
TEXT_CHARS: Final = 400


@dataclass(frozen=True)
class Line:
    """What a message says: its kind, one line of text, and the same as facts for JSON."""

    topic: str
    kind: str
    text: str
    facts: dict[str, Any]

    def __str__(self) -> str:
        return f"{printable(self.topic)}  {self.kind}  {self.text}"

    def to_json(self) -> str:
        return json.dumps({"topic": self.topic, "kind": self.kind} | self.facts)


class Describer:
    """Remembers the parts of packets that are not complete, and nothing else."""

    def __init__(self) -> None:
        self._assemblers: OrderedDict[str, Assembler] = OrderedDict()

    def describe(self, delivery: Delivery, now: float) -> Line:
        """The line of a message; a part that completes no packet gives a line of kind `part`. `now` in seconds."""
        topic, payload = delivery.topic, delivery.payload
        try:
            kind, fields = parse_topic(topic)
            if not payload:
                return Line(topic, kind.name, "removed", {"removed": True})
            if kind is ECHO:
                return _preview(topic, kind.name, payload)
            if kind.message is not None:
                return _control(topic, kind.name, decode_message(kind.message, payload).to_json(), fields)
            return self._binary(delivery, kind.name, now)
        except DecodeError as error:
            return _broken(topic, payload, str(error))

    def _binary(self, delivery: Delivery, name: str, now: float) -> Line:
        topic, payload = delivery.topic, delivery.payload
        arrival = self._assembler(topic).feed(payload, now)
        if arrival is None:
            return Line(topic, "part", f"{size(len(payload))} of a packet", {"bytes": len(payload)})
        line = describe_packet(topic, name, decode(arrival.data), len(arrival.data))
        if payload[:4] != PART_MAGIC:
            return line
        facts = {"train_bytes": arrival.train_bytes, "train_ms": round(arrival.train_s * 1e3, 3)}
        return Line(topic, line.kind, f"{line.text}, in parts", line.facts | facts)

    def _assembler(self, topic: str) -> Assembler:
        assembler = self._assemblers.setdefault(topic, Assembler())
        self._assemblers.move_to_end(topic)
        if len(self._assemblers) > MAX_TOPICS:
            self._assemblers.popitem(last=False)
        return assembler


def describe_packet(topic: str, name: str, packet: Packet, total: int) -> Line:
    """The line of a packet of `total` bytes on a topic of kind `name`."""
    text, facts = _PACKETS[type(packet)](packet)
    kind = f"{name}/{type(packet).__name__.lower()}"
    return Line(topic, kind, f"{printable(text)}, {size(total)}", facts | {"bytes": total})


def _control(topic: str, name: str, document: bytes, fields: dict[str, str]) -> Line:
    message = json.loads(document)
    told = {key: value for key, value in message.items() if key != "v" and fields.get(key) != value}
    text = " ".join(f"{key}={_value(value)}" for key, value in told.items())
    return Line(topic, name, shortened(printable(text), TEXT_CHARS), {"message": message})


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value and " " not in value else json.dumps(value, ensure_ascii=False)


def _preview(topic: str, name: str, payload: bytes) -> Line:
    text = printable(payload[:PREVIEW_BYTES].decode("utf-8", "backslashreplace"))
    return Line(topic, name, text, {"text": text, "bytes": len(payload)})


def _broken(topic: str, payload: bytes, problem: str) -> Line:
    begin = payload[:PREVIEW_BYTES]
    text = f"{problem}; {size(len(payload))}: {begin!r}{'…' * (len(payload) > len(begin))}"
    facts = {"problem": problem, "bytes": len(payload), "begin_hex": begin.hex()}
    return Line(topic, "not-splitbus" if "none of splitbus" in problem else "broken", printable(text), facts)


def _job(job: Job) -> tuple[str, dict[str, Any]]:
    hops = [f"{hop.node}[{hop.slice[:8]} {hop.coding}]" for hop in job.route]
    budget = milliseconds(job.budget_us / 1e3) if job.budget_us else "no deadline"
    text = (
        f"frame {job.frame}, plan {job.plan} epoch {job.epoch}, {' > '.join(hops)} > answer, budget {budget}"
        f"{_attempt(job.attempt)}{_spent_text(job.spent)}; {_tensors_text(job.tensors)}"
    )
    return text, {
        **_frame(job),
        "model": job.model,
        "budget_ms": job.budget_us / 1e3,
        "reply_to": job.reply_to,
        "route": [{"node": hop.node, "slice": hop.slice, "coding": hop.coding} for hop in job.route],
        "tensors": _tensors(job.tensors),
    }


def _result(result: Result) -> tuple[str, dict[str, Any]]:
    text = (
        f"frame {result.frame}, plan {result.plan} epoch {result.epoch}{_attempt(result.attempt)}"
        f"{_spent_text(result.spent)}; {_tensors_text(result.tensors)}"
    )
    return text, {**_frame(result), "tensors": _tensors(result.tensors)}


def _refusal(refusal: Refusal) -> tuple[str, dict[str, Any]]:
    why = f"{refusal.reason}: {refusal.detail}" if refusal.detail else refusal.reason
    text = f"frame {refusal.frame}, plan {refusal.plan}{_attempt(refusal.attempt)}, refused by {refusal.node}, {why}"
    facts = {"node": refusal.node, "reason": refusal.reason, "detail": refusal.detail}
    return text, {**_frame(refusal), **facts}


def _probe(probe: Probe) -> tuple[str, dict[str, Any]]:
    text = f"probe {probe.id} of {probe.sender}, {size(len(probe.pad))} there, {size(probe.back)} back"
    return text, {"id": probe.id, "sender": probe.sender, "reply_to": probe.reply_to, "back": probe.back}


def _echo(echo: Echo) -> tuple[str, dict[str, Any]]:
    held, train = milliseconds(echo.held_us / 1e3), milliseconds(echo.train_us / 1e3)
    text = f"echo {echo.id} of {echo.node}, held {held}, {size(echo.train_bytes)} arrived in {train}"
    facts = {"id": echo.id, "node": echo.node, "held_us": echo.held_us}
    return text, {**facts, "train_bytes": echo.train_bytes, "train_us": echo.train_us}


def _blob(piece: BlobPiece) -> tuple[str, dict[str, Any]]:
    facts = {"sha256": piece.sha256, "offset": piece.offset, "total": piece.total, "length": len(piece.data)}
    if not piece.total:
        return f"blob {piece.sha256[:12]} is not there: {piece.detail}", facts | {"detail": piece.detail}
    end = piece.offset + len(piece.data)
    return f"blob {piece.sha256[:12]}, bytes {piece.offset} to {end} of {piece.total}", facts


def _sealed(packet: Sealed) -> tuple[str, dict[str, Any]]:
    """What is in clear of it, and by whom it was sealed."""
    text, facts = _PACKETS[type(packet.clear)](packet.clear)
    seal = packet.seal
    told = {"sender": seal.sender, "key": seal.key, "era": seal.era, "number": seal.number}
    return f"sealed by {seal.sender} as its {seal.number}, {text}", facts | {"sealed": told}


_PACKETS: Final[dict[type, Callable[[Any], tuple[str, dict[str, Any]]]]] = {
    Job: _job,
    Result: _result,
    Refusal: _refusal,
    Probe: _probe,
    Echo: _echo,
    BlobPiece: _blob,
    Sealed: _sealed,
}


def _frame(packet: Job | Result | Refusal) -> dict[str, Any]:
    spent = [{name: getattr(item, name) for name in Spent.__slots__} for item in packet.spent]
    return {
        "frame": str(packet.frame),
        "plan": packet.plan,
        "epoch": packet.epoch,
        "attempt": packet.attempt,
        "spent": spent,
    }


def _attempt(attempt: int) -> str:
    return f", attempt {attempt}" if attempt > 1 else ""


def _spent_text(spent: tuple[Spent, ...]) -> str:
    told = ", ".join(f"{item.node} {milliseconds(item.total_us / 1e3)}" for item in spent)
    return f", spent {told}" if told else ""


def _tensors(tensors: tuple[Tensor, ...]) -> list[dict[str, Any]]:
    return [
        {"name": t.name, "dtype": t.dtype, "shape": t.shape, "coding": t.coding, "bytes": len(t.data), "final": t.final}
        for t in tensors
    ]


def _tensors_text(tensors: tuple[Tensor, ...]) -> str:
    told = (
        f"{t.name or '(no name)'} {t.dtype} {shape(t.shape)} {t.coding} {size(len(t.data))}{' final' * t.final}"
        for t in tensors
    )
    return ", ".join(told) or "no tensors"
