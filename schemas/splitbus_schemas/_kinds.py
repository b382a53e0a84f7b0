"""The kinds of packet: for each, its number and how its header and body are written and read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from splitbus_schemas.codecs import CODINGS
from splitbus_schemas.dtypes import DTYPES
from splitbus_schemas.errors import DecodeError, PayloadTooLargeError
from splitbus_schemas.limits import (
    MAX_BLOB_BYTES,
    MAX_PACKET_BYTES,
    MAX_RANK,
    MAX_SPENT,
    MAX_STAGES,
    MAX_TENSOR_BYTES,
    MAX_TENSORS,
    MAX_TEXT_BYTES,
)
from splitbus_schemas.packet_types import (
    BlobPiece,
    Echo,
    FrameId,
    Hop,
    Job,
    Packet,
    Probe,
    Refusal,
    Result,
    Spent,
    Tensor,
)
from splitbus_schemas.reader import Reader

Body: TypeAlias = list[bytes | memoryview]


def _decoded_bytes(dtype: str, shape: Sequence[int]) -> int:
    """What an array of that shape takes; a zero counts as one, as in numpy, which bounds empty shapes likewise."""
    return math.prod(dim or 1 for dim in shape) * DTYPES[dtype].itemsize


def _check_length(what: str, values: Sequence[Any], limit: int) -> None:
    if len(values) > limit:
        raise PayloadTooLargeError(f"list of {what} in a packet", len(values), limit)


def _clip(text: str) -> str:
    """The beginning of a sentence that may be as long as some library likes."""
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def write_tensors(tensors: Sequence[Tensor]) -> list[list[Any]]:
    """The rows of a header. Raises PayloadTooLargeError."""
    _check_length("tensors", tensors, MAX_TENSORS)
    decoded = sum(_decoded_bytes(t.dtype, t.shape) for t in tensors)
    if decoded > MAX_TENSOR_BYTES:
        raise PayloadTooLargeError("set of tensors in a packet", decoded, MAX_TENSOR_BYTES)
    return [[t.name, t.dtype, list(t.shape), t.coding, len(t.data), t.final] for t in tensors]


def read_tensors(reader: Reader, body: memoryview) -> tuple[Tensor, ...]:
    """The tensors of a header's rows, which fill the body. Raises DecodeError."""
    tensors = []
    offset = decoded = 0
    for entry in reader.rows("tensors", columns=6, limit=MAX_TENSORS):
        tensor, offset = _read_tensor(entry, body, offset)
        tensors.append(tensor)
        decoded += _decoded_bytes(tensor.dtype, tensor.shape)
    if decoded > MAX_TENSOR_BYTES:
        raise DecodeError(f"tensors decode to {decoded} bytes, the limit is {MAX_TENSOR_BYTES}")
    if offset != len(body):
        raise DecodeError(f"body has {len(body)} bytes, its tensors need {offset}")
    return tuple(tensors)


def _read_tensor(entry: Reader, body: memoryview, offset: int) -> tuple[Tensor, int]:
    name, dtype, coding = entry.name(0), entry.word(1), entry.word(3)
    if dtype not in DTYPES:
        raise DecodeError(f"tensor {name!r} has dtype {dtype!r}, known are {', '.join(DTYPES)}")
    if coding not in CODINGS:
        raise DecodeError(f"tensor {name!r} has coding {coding!r}, known are {', '.join(CODINGS)}")
    shape = entry.sizes(2, limit=MAX_RANK)
    length = entry.integer(4, limit=MAX_PACKET_BYTES)
    if offset + length > len(body):
        raise DecodeError(f"tensor {name!r} ends beyond the packet")
    data = body[offset : offset + length]
    return Tensor(name, dtype, shape, coding, data, entry.flag(5)), offset + length


def _write_frame(frame: FrameId) -> list[Any]:
    return [frame.device, frame.boot, frame.seq]


def _read_frame(reader: Reader) -> FrameId:
    row = reader.row("frame", columns=3)
    return FrameId(row.id(0), row.id(1), row.integer(2))


def _write_spent(spent: Sequence[Spent]) -> list[list[Any]]:
    _check_length("timings", spent, MAX_SPENT)
    return [[s.node, s.queue_us, s.decode_us, s.run_us, s.encode_us, s.train_bytes, s.train_us] for s in spent]


def _read_spent(reader: Reader) -> tuple[Spent, ...]:
    rows = reader.rows("spent", columns=7, limit=MAX_SPENT)
    return tuple(Spent(row.id(0), *row.integers(1, 7)) for row in rows)


def _write_job(job: Job) -> tuple[dict[str, Any], Body]:
    _check_length("stages", job.route, MAX_STAGES)
    header = {
        "frame": _write_frame(job.frame),
        "model": job.model,
        "plan": job.plan,
        "epoch": job.epoch,
        "attempt": job.attempt,
        "budget": job.budget_us,
        "reply": job.reply_to,
        "route": [[hop.node, hop.slice, hop.coding] for hop in job.route],
        "spent": _write_spent(job.spent),
        "tensors": write_tensors(job.tensors),
    }
    if job.answer:
        header["answer"] = job.answer
    return header, [tensor.data for tensor in job.tensors]


def _read_job(reader: Reader, body: memoryview) -> Job:
    route = tuple(
        Hop(row.id(0), row.sha256(1), _known_coding(row.word(2)))
        for row in reader.rows("route", columns=3, limit=MAX_STAGES)
    )
    if not route:
        raise DecodeError("job: route is empty")
    frame = _read_frame(reader)
    return Job(
        frame=frame,
        model=reader.sha256("model"),
        plan=reader.id("plan"),
        epoch=reader.integer("epoch"),
        attempt=reader.integer("attempt"),
        budget_us=reader.integer("budget"),
        reply_to=reader.reply_topic("reply", frame.device),
        route=route,
        tensors=read_tensors(reader, body),
        spent=_read_spent(reader),
        answer=reader.id("answer") if reader.has("answer") else "",
    )


def _known_coding(coding: str) -> str:
    if coding not in CODINGS:
        raise DecodeError(f"coding {coding!r} is not known: known are {', '.join(CODINGS)}")
    return coding


def _write_result(result: Result) -> tuple[dict[str, Any], Body]:
    header = {
        "frame": _write_frame(result.frame),
        "plan": result.plan,
        "epoch": result.epoch,
        "attempt": result.attempt,
        "spent": _write_spent(result.spent),
        "tensors": write_tensors(result.tensors),
    }
    return header, [tensor.data for tensor in result.tensors]


def _read_result(reader: Reader, body: memoryview) -> Result:
    return Result(
        frame=_read_frame(reader),
        plan=reader.id("plan"),
        epoch=reader.integer("epoch"),
        attempt=reader.integer("attempt"),
        tensors=read_tensors(reader, body),
        spent=_read_spent(reader),
    )


def _write_refusal(refusal: Refusal) -> tuple[dict[str, Any], Body]:
    header = {
        "frame": _write_frame(refusal.frame),
        "plan": refusal.plan,
        "epoch": refusal.epoch,
        "attempt": refusal.attempt,
        "node": refusal.node,
        "reason": refusal.reason,
        "detail": _clip(refusal.detail),
        "spent": _write_spent(refusal.spent),
    }
    return header, []


def _read_refusal(reader: Reader, body: memoryview) -> Refusal:
    _no_body(reader, body)
    return Refusal(
        frame=_read_frame(reader),
        plan=reader.id("plan"),
        epoch=reader.integer("epoch"),
        attempt=reader.integer("attempt"),
        node=reader.id("node"),
        reason=reader.word("reason"),
        detail=reader.text("detail"),
        spent=_read_spent(reader),
    )


def _no_body(reader: Reader, body: memoryview) -> None:
    if body:
        raise DecodeError(f"{reader.what}: {len(body)} bytes stand behind the header, none belong there")


def _write_probe(probe: Probe) -> tuple[dict[str, Any], Body]:
    header = {"id": probe.id, "sender": probe.sender, "reply": probe.reply_to, "back": probe.back}
    return header, [probe.pad]


def _read_probe(reader: Reader, body: memoryview) -> Probe:
    sender = reader.id("sender")
    return Probe(
        id=reader.integer("id"),
        sender=sender,
        reply_to=reader.reply_topic("reply", sender),
        back=reader.integer("back", limit=MAX_PACKET_BYTES // 2),
        pad=body,
    )


def _write_echo(echo: Echo) -> tuple[dict[str, Any], Body]:
    header = {
        "id": echo.id,
        "node": echo.node,
        "held": echo.held_us,
        "train_bytes": echo.train_bytes,
        "train_us": echo.train_us,
    }
    return header, [echo.pad]


def _read_echo(reader: Reader, body: memoryview) -> Echo:
    return Echo(
        id=reader.integer("id"),
        node=reader.id("node"),
        held_us=reader.integer("held"),
        train_bytes=reader.integer("train_bytes"),
        train_us=reader.integer("train_us"),
        pad=body,
    )


def _write_blob(piece: BlobPiece) -> tuple[dict[str, Any], Body]:
    header = {"sha256": piece.sha256, "offset": piece.offset, "total": piece.total, "detail": _clip(piece.detail)}
    return header, [piece.data]


def _read_blob(reader: Reader, body: memoryview) -> BlobPiece:
    piece = BlobPiece(
        sha256=reader.sha256("sha256"),
        offset=reader.integer("offset", limit=MAX_BLOB_BYTES),
        total=reader.integer("total", limit=MAX_BLOB_BYTES),
        data=body,
        detail=reader.text("detail"),
    )
    if piece.offset + len(body) > piece.total:
        raise DecodeError("blob: the piece ends beyond the blob's total")
    return piece


@dataclass(frozen=True)
class Kind:
    number: int
    name: str
    type: type[Packet]
    write: Callable[[Any], tuple[Mapping[str, Any], Body]]
    read: Callable[[Reader, memoryview], Packet]


KINDS: Final = (
    Kind(1, "job", Job, _write_job, _read_job),
    Kind(2, "result", Result, _write_result, _read_result),
    Kind(3, "refusal", Refusal, _write_refusal, _read_refusal),
    Kind(4, "probe", Probe, _write_probe, _read_probe),
    Kind(5, "echo", Echo, _write_echo, _read_echo),
    Kind(6, "blob", BlobPiece, _write_blob, _read_blob),
)
KINDS_BY_NUMBER: Final = {kind.number: kind for kind in KINDS}
KINDS_BY_TYPE: Final[dict[type[Packet], Kind]] = {kind.type: kind for kind in KINDS}
