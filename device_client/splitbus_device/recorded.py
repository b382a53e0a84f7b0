"""What the journal's records hold: a frame's inputs, its head's output with the plan it follows, its answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgpack
import numpy as np

from splitbus_device.answer import Answer
from splitbus_device.journal import Bytes, Record
from splitbus_schemas.codecs import CODINGS
from splitbus_schemas.dtypes import DTYPES
from splitbus_schemas.errors import DecodeError, JournalError, PayloadTooLargeError
from splitbus_schemas.limits import MAX_RANK, MAX_TENSORS
from splitbus_schemas.messages import Plan
from splitbus_schemas.packet import Array, pack_tensor, unpack_tensor
from splitbus_schemas.packet_types import Tensor
from splitbus_schemas.reader import Reader

Content: TypeAlias = tuple[bytes, list[Bytes]]
"""A record's facts and body."""

_KEPT_FIELDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "plan": str,
    "epoch": int,
    "frame": str,
    "total_ms": (int, float),
    "attempts": int,
    "late": bool,
    "reason": str,
    "outcome": str,
}
MAX_ROWS: Final = 4 * MAX_TENSORS
"""Tensors of a record: what crosses the cut, and the outputs that are complete before it."""


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
    return Inputs(_arrays(tensors), _names(record, facts))


def pack_head(plan_json: bytes, sent: Sequence[Tensor], kept: Mapping[str, Array]) -> Content:
    """A HEAD record's content. Raises JournalError."""
    tensors = [*sent, *_packed(kept.items())]
    return _facts(tensors, plan=plan_json, sent=len(sent)), [tensor.data for tensor in tensors]


def unpack_head(record: Record) -> Head:
    """Raises DecodeError."""
    facts, tensors = _read(record)
    count = facts.get("sent")
    if type(count) is not int or not 0 <= count <= len(tensors) or not isinstance(facts.get("plan"), bytes):
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
    for field, kind in _KEPT_FIELDS.items():
        if not isinstance(facts.get(field), kind):
            raise DecodeError(f"the answer to frame {record.key!r} is kept without {field}")
    route = _words(facts.get("route"))
    if route is None:
        raise DecodeError(f"the answer to frame {record.key!r} is kept without route")
    answer = Answer(
        outputs=[array.copy() for array in _arrays(tensors).values()],
        route=route,
        key=record.key,
        repeated=True,
        **{field: facts[field] for field in _KEPT_FIELDS},
    )
    return answer, _names(record, facts)


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
    """The facts and the tensors, which share the record's bytes. Raises DecodeError."""
    try:
        facts = msgpack.unpackb(record.facts)
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError(f"a record of frame {record.key!r} cannot be read: {error}") from None
    if not isinstance(facts, dict):
        raise DecodeError(f"a record of frame {record.key!r} cannot be read: its facts are no map")
    body, tensors, at = memoryview(record.body), [], 0
    for row in Reader(facts, f"a record of frame {record.key!r}").rows("tensors", columns=6, limit=MAX_ROWS):
        tensor = _tensor(row, body[at:])
        tensors.append(tensor)
        at += len(tensor.data)
    return facts, tensors


def _tensor(row: Reader, rest: memoryview) -> Tensor:
    """Raises DecodeError."""
    name, dtype, coding, length = row.name(0), row.word(1), row.word(3), row.integer(4)
    if dtype not in DTYPES or coding not in CODINGS or length > len(rest):
        raise DecodeError(f"{row.what}: {name!r} is no tensor of {dtype} in {length} bytes of {coding}")
    return Tensor(name, dtype, row.sizes(2, limit=MAX_RANK), coding, rest[:length], row.flag(5))


def _arrays(tensors: Sequence[Tensor]) -> dict[str, Array]:
    """What was kept as it is. Raises DecodeError."""
    if any(tensor.coding != "raw" for tensor in tensors):
        raise DecodeError("a tensor in a record is coded, and was kept as it is")
    return {tensor.name: unpack_tensor(tensor) for tensor in tensors}


def _names(record: Record, facts: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Of the outputs asked for. Raises DecodeError."""
    asked = facts.get("names")
    names = _words(asked)
    if names is None and asked is not None:
        raise DecodeError(f"frame {record.key!r} is kept with {asked!r:.80} as names of outputs")
    return names


def _words(found: Any) -> tuple[str, ...] | None:
    """A list of texts; None for anything else."""
    return tuple(found) if isinstance(found, list) and all(isinstance(word, str) for word in found) else None
