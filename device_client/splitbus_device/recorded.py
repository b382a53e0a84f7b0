"""What the journal's records hold: a frame's inputs, its head's output with the plan it follows, its answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgpack
import numpy as np

from splitbus_device.answer import Answer
from splitbus_device.journal import Bytes, Record
from splitbus_schemas.errors import DecodeError, JournalError, PayloadTooLargeError
from splitbus_schemas.messages import Plan
from splitbus_schemas.packet import Array, pack_tensor, unpack_tensor
from splitbus_schemas.packet_types import Tensor

Content: TypeAlias = tuple[bytes, list[Bytes]]
"""A record's facts and body."""

_KEPT_FIELDS: Final = ("plan", "epoch", "frame", "total_ms", "attempts", "late", "reason", "outcome")


@dataclass(frozen=True, slots=True)
class Inputs:
    """A frame as it was accepted."""

    feeds: dict[str, Array]
    names: tuple[str, ...] | None
    """Of the outputs asked for; None for all."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the head slice made of a frame."""

    plan: Plan
    """The one whose head it was."""
    sent: tuple[Tensor, ...]
    """What the workers need."""
    kept: dict[str, Array]
    """Outputs of the model that are complete already."""


def pack_inputs(feeds: Mapping[str, Any], names: Sequence[str] | None) -> Content:
    """An INPUT record's content. Raises JournalError for inputs that are no plain arrays."""
    tensors = _packed(feeds.items())
    return _facts(tensors, names=None if names is None else list(names)), [tensor.data for tensor in tensors]


def unpack_inputs(record: Record) -> Inputs:
    """Raises DecodeError."""
    facts, tensors = _read(record)
    names = facts.get("names")
    return Inputs(_arrays(tensors), None if names is None else tuple(names))


def pack_head(plan_json: bytes, sent: Sequence[Tensor], kept: Mapping[str, Array]) -> Content:
    """A HEAD record's content. Raises JournalError."""
    tensors = [*sent, *_packed(kept.items())]
    return _facts(tensors, plan=plan_json, sent=len(sent)), [tensor.data for tensor in tensors]


def unpack_head(record: Record) -> Head:
    """Raises DecodeError."""
    facts, tensors = _read(record)
    count = facts.get("sent")
    if not isinstance(count, int) or not 0 <= count <= len(tensors) or not isinstance(facts.get("plan"), bytes):
        raise DecodeError(f"the head of frame {record.key!r} is kept without its plan")
    return Head(Plan.from_json(facts["plan"]), tuple(tensors[:count]), _arrays(tensors[count:]))


def pack_answer(answer: Answer, names: Sequence[str] | None) -> Content:
    """An ANSWER record's content. Raises JournalError for outputs that are no plain arrays."""
    tensors = _packed((str(index), output) for index, output in enumerate(answer.outputs))
    fields = {field: getattr(answer, field) for field in _KEPT_FIELDS}
    return (
        _facts(tensors, names=None if names is None else list(names), route=list(answer.route), **fields),
        [tensor.data for tensor in tensors],
    )


def unpack_answer(record: Record) -> tuple[Answer, tuple[str, ...] | None]:
    """The answer, marked as repeated, and the names of the outputs asked for. Raises DecodeError."""
    facts, tensors = _read(record)
    names = facts.get("names")
    try:
        answer = Answer(
            outputs=[unpack_tensor(tensor).copy() for tensor in tensors],
            route=tuple(facts["route"]),
            key=record.key,
            repeated=True,
            **{field: facts[field] for field in _KEPT_FIELDS},
        )
    except (KeyError, TypeError) as error:
        raise DecodeError(f"the answer to frame {record.key!r} is kept without {error}") from None
    return answer, None if names is None else tuple(names)


def _packed(arrays: Any) -> list[Tensor]:
    tensors = []
    for name, array in arrays:
        if not isinstance(array, np.ndarray):
            raise JournalError(f"{name!r} is a {type(array).__name__}, and only numpy arrays are kept")
        try:
            tensors.append(pack_tensor(str(name), array, "raw"))
        except (KeyError, PayloadTooLargeError) as error:
            raise JournalError(f"{name!r} of {array.dtype.name}{list(array.shape)} cannot be kept: {error}") from None
    return tensors


def _facts(tensors: Sequence[Tensor], **facts: Any) -> bytes:
    rows = [[t.name, t.dtype, list(t.shape), t.coding, len(t.data), t.final] for t in tensors]
    packed: bytes = msgpack.packb(facts | {"tensors": rows})
    return packed


def _read(record: Record) -> tuple[dict[str, Any], list[Tensor]]:
    """The facts and the tensors, which share the record's bytes."""
    body = memoryview(record.body)
    tensors, at = [], 0
    try:
        facts = msgpack.unpackb(record.facts)
        for name, dtype, shape, coding, length, final in facts["tensors"]:
            tensors.append(Tensor(name, dtype, tuple(shape), coding, body[at : at + length], final))
            at += length
    except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError(f"a record of frame {record.key!r} cannot be read: {error}") from None
    return facts, tensors


def _arrays(tensors: Sequence[Tensor]) -> dict[str, Array]:
    """Raises DecodeError."""
    try:
        return {tensor.name: unpack_tensor(tensor) for tensor in tensors}
    except (KeyError, ValueError) as error:
        raise DecodeError(f"a tensor in a record cannot be read: {error}") from None
