"""One frame on its way: what was asked for, what goes out of the head, and why it did not come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from splitbus_device.predictor import Crossing, Packed
from splitbus_device.recorded import Head
from splitbus_runtime.engine import Array, TensorInfo
from splitbus_schemas.packet_types import Spent, Tensor

Keep: TypeAlias = Callable[[bytes, Sequence[Tensor], Mapping[str, Array]], None]


@dataclass(frozen=True, slots=True)
class Fallback:
    """The frame is to be answered locally, and why."""

    reason: str
    attempts: int = 0
    frame: str = ""
    """Its id, when it was sent."""


@dataclass(frozen=True, slots=True)
class Activation:
    """A head's work: what goes out, what stays, and how long it took."""

    sent: tuple[Tensor, ...]
    kept: dict[str, Array]
    spent: Spent
    packed: Packed | None = None
    """What goes out, when that depends on who is to get it."""
    crossing: Crossing = ()
    """What `sent` was coded from, where it may be sent again finer; nothing when that was done in an earlier life."""

    def tensors(self, node: str) -> tuple[Tensor, ...]:
        """What goes to that node."""
        return self.sent if self.packed is None else self.packed.for_node(node)


@dataclass(frozen=True, slots=True)
class Frame:
    """One inference request. Times in seconds of time.monotonic()."""

    feeds: Mapping[str, Array]
    wanted: Sequence[TensorInfo]
    """The outputs asked for, in order."""
    started: float
    """When it was asked for."""
    deadline: float
    local_s: float
    """What a local run takes."""
    head: Head | None = None
    """Its head's output, when that was run in an earlier life, under the plan that it is delivered by."""
    keep: Keep | None = None
    """Called with plan (JSON), what was sent and what stays, once the activation is on its way."""
