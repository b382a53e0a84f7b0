"""What came back for a frame, as its caller asked for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from splitbus_runtime.engine import Array, TensorInfo, has_shape
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.messages import Step
from splitbus_schemas.packet import dtype_name, unpack_tensor
from splitbus_schemas.packet_types import Result, Spent


def outputs_of(wanted: Sequence[TensorInfo], kept: Mapping[str, Array], result: Result) -> list[Any]:
    """The arrays that the caller asked for, its own to change as onnxruntime's are. Raises DecodeError."""
    came = {tensor.name: tensor for tensor in result.tensors}
    outputs = []
    for info in wanted:
        array = kept.get(info.name)
        if array is None:
            if info.name not in came:
                raise DecodeError(f"the answer to frame {result.frame} lacks output {info.name!r}")
            array = unpack_tensor(came[info.name]).copy()
        if not _fits(array, info):
            raise DecodeError(
                f"the answer to frame {result.frame} has output {info.name!r} as {array.dtype.name}"
                f"{list(array.shape)}, the model gives {info.dtype}{list(info.shape)}"
            )
        outputs.append(array)
    return outputs


def _fits(array: Array, info: TensorInfo) -> bool:
    """Whether dtype and known sizes agree; an empty shape may stand for one that nobody knows."""
    return (not info.dtype or dtype_name(array) == info.dtype) and (not info.shape or has_shape(array, info.shape))


def steps_of(spent: tuple[Spent, ...]) -> tuple[Step, ...]:
    """What each node did, in order; nothing for what took no time."""
    parts = (
        (what, node.node, us)
        for node in spent
        for what, us in (
            ("queue", node.queue_us),
            ("decode", node.decode_us),
            ("run", node.run_us),
            ("encode", node.encode_us),
        )
        if us
    )
    return tuple(Step.model_validate({"what": what, "where": where, "ms": us / 1e3}) for what, where, us in parts)
