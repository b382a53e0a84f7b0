"""References: a tensor of coefficients as integers, which both ends of a link hold and know by what they are. Pure.

A reference's name is the first 8 bytes of the SHA-256 of, little-endian: the id of the tables (8 bytes), the shift
(1 byte, signed), the batch (4 bytes), and all integers in C order (2 bytes each). Whoever finds one by its name has the
right one; one that was never there, or is no longer, is missed and never mistaken.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.entropy import Floats, Ints, step_of

NAME_BYTES: Final = 8
NO_NAME: Final = bytes(NAME_BYTES)
"""In place of a name: the frame needs no reference."""

_HEAD: Final = struct.Struct("<bI")


@dataclass(frozen=True, eq=False)
class Reference:
    """The integers (int16, batch x coefficients of the tables) that stand for a tensor, in steps of a strength."""

    steps: Ints
    shift: int
    tables: bytes
    """Id of the tables."""

    @cached_property
    def name(self) -> bytes:
        """Which integers these are."""
        digest = hashlib.sha256(self.tables + _HEAD.pack(self.shift, len(self.steps)))
        digest.update(np.ascontiguousarray(self.steps, "<i2").data)
        return digest.digest()[:NAME_BYTES]

    def values(self, shape: tuple[int, ...]) -> Floats:
        """The coefficients as a slice takes them; float32, of `shape`."""
        found: NDArray[np.float32] = self.steps.astype(np.float32)
        found *= np.float32(step_of(self.shift))
        return found.reshape(shape)

    def suits(self, other: Reference) -> bool:
        """Whether the other's integers can be told as differences from these."""
        return (self.shift, self.tables, self.steps.shape) == (other.shift, other.tables, other.steps.shape)


class Held(Protocol):
    """What a receiver holds of one sender's frames."""

    def find(self, name: bytes) -> Reference | None:
        """The reference of that name, if it is still there."""

    def keep(self, reference: Reference) -> None:
        """Later frames may refer to it."""
