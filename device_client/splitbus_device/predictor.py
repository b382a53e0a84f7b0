"""Codes a stream's frames as differences from earlier ones that the next node is known to hold.

A node holds what it has decoded, and answers tell what that was: the reference is the newest frame that was answered
over the node. A frame that is merely on its way there may still be refused for its age, or overtaken by the next.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeAlias

from splitbus_runtime.engine import Array
from splitbus_schemas.codecs import CODINGS
from splitbus_schemas.differences import difference, key_frame, settle
from splitbus_schemas.entropy import Coder
from splitbus_schemas.packet import pack_tensor
from splitbus_schemas.packet_types import Tensor
from splitbus_schemas.references import Reference

KEY_SECONDS: Final = 30.0
"""A key frame is sent at least so often: whoever begins to listen need not wait for ever. At ten frames a second it
costs a third of a percent of what frames without references take."""

MAX_PENDING: Final = 16
"""Frames whose answers may still make them references: a window, and those that were given up."""

MAX_NODES: Final = 8
"""Nodes whose references are remembered: a plan has one, its alternates few."""

MISSES: Final = 4
"""So many frames in turn that differ too much, or references that are refused, and there is nothing to predict."""

REST_FRAMES: Final = 60
"""Then so many frames are sent without a thought of references."""

Crossing: TypeAlias = Sequence[tuple[str, Array]]


def pack_alone(crossing: Crossing, coding: str, coders: Mapping[str, Coder]) -> tuple[Tensor, ...]:
    """The tensors without a reference to any frame. Raises as `pack_tensor` does."""
    return tuple(pack_tensor(name, array, coding, coder=coders.get(name)) for name, array in crossing)


@dataclass(eq=False)
class Packed:
    """A frame's tensors as they are for `node`, and as any other node takes them."""

    node: str
    tensors: tuple[Tensor, ...]
    coders: Mapping[str, Coder] = field(default_factory=dict, repr=False)
    settled: Mapping[str, Reference] = field(default_factory=dict, repr=False)
    """The integers of each tensor of coefficients, which every receiver will have."""
    basis: int | None = None
    """The frame that it tells the differences from; None when it needs none."""
    change: float = 1.0
    """Estimated size over that of key frames."""
    keyed_at: float = 0.0
    """When the last key frame was made that it goes back to."""
    _refused: bool = field(default=False, init=False)

    def for_node(self, node: str) -> tuple[Tensor, ...]:
        """What to send there."""
        return self.tensors if self.basis is None or (node == self.node and not self._refused) else self.alone

    def stand_alone(self) -> bool:
        """From now on, need no reference anywhere. False when it needs none already."""
        if self.basis is None or self._refused:
            return False
        self._refused = True
        return True

    @cached_property
    def alone(self) -> tuple[Tensor, ...]:
        """The same tensors, bit by bit, without a reference."""
        return tuple(
            Tensor(t.name, t.dtype, t.shape, t.coding, key_frame(self.coders[t.name], self.settled[t.name]), t.final)
            if t.name in self.settled
            else t
            for t in self.tensors
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """What a node holds: the tensors of a frame."""

    seq: int
    settled: Mapping[str, Reference]
    keyed_at: float


class Predictor:
    """One stream's memory of what its nodes hold. Thread-safe; clocks are the caller's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._pending: OrderedDict[int, Packed] = OrderedDict()
        self._misses = 0
        self._refusals = 0
        self._rest = 0

    def pack(
        self, node: str, crossing: Crossing, coding: str, coders: Mapping[str, Coder], slack: float, now: float
    ) -> Packed:
        """The tensors for `node`, `now` in seconds. Raises as `pack_tensor` does."""
        with self._lock:
            known = self._known.get(node)
            resting = self._rest > 0
            self._rest -= resting
        if resting:
            return Packed(node, pack_alone(crossing, coding, coders))
        base = known if known is not None and now - known.keyed_at < KEY_SECONDS else None
        packed = _pack(node, crossing, coding, coders, slack, base, now)
        if base is not None:
            self._note_gain(gained=packed.basis is not None)
        return packed

    def sent(self, seq: int, packed: Packed) -> None:
        """The frame of that number goes out; its answer will tell who holds it."""
        if not packed.settled:
            return
        with self._lock:
            self._pending[seq] = packed
            while len(self._pending) > MAX_PENDING:
                self._pending.popitem(last=False)

    def answered(self, seq: int, node: str) -> None:
        """An answer to that frame came over `node`, which therefore holds it."""
        with self._lock:
            packed = self._pending.pop(seq, None)
            if packed is None:
                return
            if packed.basis is not None:
                self._refusals = 0
            before = self._known.get(node)
            if before is None or before.seq < seq:
                self._known[node] = _Known(seq, packed.settled, packed.keyed_at)
                self._known.move_to_end(node)
            while len(self._known) > MAX_NODES:
                self._known.popitem(last=False)

    def refused(self, node: str) -> None:
        """The node lacks what it was thought to hold."""
        self.forget(node)
        with self._lock:
            self._refusals += 1
            if self._refusals >= MISSES:
                self._refusals, self._rest = 0, REST_FRAMES

    def forget(self, node: str) -> None:
        """The node is gone, and holds nothing when it comes back."""
        with self._lock:
            self._known.pop(node, None)

    def _note_gain(self, *, gained: bool) -> None:
        with self._lock:
            self._misses = 0 if gained else self._misses + 1
            if self._misses >= MISSES:
                self._misses, self._rest = MISSES - 1, REST_FRAMES  # one try is enough from now on


def _pack(
    node: str,
    crossing: Crossing,
    coding: str,
    coders: Mapping[str, Coder],
    slack: float,
    base: _Known | None,
    now: float,
) -> Packed:
    tensors: list[Tensor] = []
    settled: dict[str, Reference] = {}
    changes: list[float] = []
    shift = CODINGS[coding].shift
    for name, array in crossing:
        coder, held = coders.get(name), base.settled.get(name) if base is not None else None
        steps = settle(coder, array, shift, held, slack) if coder and shift is not None and array.size else None
        if coder is None or steps is None:
            tensors.append(pack_tensor(name, array, coding, coder=coder))
            continue
        told = difference(coder, steps, held) if held is not None else None
        frame = told.frame if told is not None else key_frame(coder, steps)
        tensors.append(Tensor(name, "float32", array.shape, coding, frame))
        settled[name] = steps
        changes.append(told.share if told is not None else 1.0)
    if base is None or min(changes, default=1.0) == 1.0:
        return Packed(node, tuple(tensors), coders, settled, keyed_at=now)
    change = max(changes) if len(settled) == len(tensors) else 1.0
    return Packed(node, tuple(tensors), coders, settled, base.seq, change, base.keyed_at)
