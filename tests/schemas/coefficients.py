"""Tables and coefficients that tests of the entropy coder share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.entropy import Coder
from splitbus_schemas.entropy_tables import TOTAL, Tables, make_tables
from splitbus_schemas.references import Reference

SHAPE = (6, 4, 3)


def frequencies(limit: int, ratio: float) -> NDArray[np.uint16]:
    """Each magnitude `ratio` times as frequent as the one before."""
    half = ratio ** np.arange(1, limit + 1)
    half = np.maximum(np.rint(TOTAL * half / (1 + 2 * half.sum())), 1).astype(np.int64)
    return np.concatenate(([TOTAL - 2 * half.sum()], half)).astype(np.uint16)


def some_tables() -> Tables:
    levels = np.linspace(20, -40, int(np.prod(SHAPE))).astype(np.int8).reshape(SHAPE)
    return make_tables(levels, -16, [frequencies(limit, 0.9 - 1 / (limit + 1)) for limit in (1, 2, 3, 5, 8, 20, 60)])


TABLES = some_tables()
CODER = Coder(TABLES)


def example(seed: int = 0, batch: int = 1, spread: float = 3.0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).laplace(0, spread, (batch, *SHAPE)).astype(np.float32)


class Memory(dict[bytes, Reference]):
    """What a receiver holds: everything, until a test forgets some."""

    def find(self, name: bytes) -> Reference | None:
        return self.get(name)

    def keep(self, reference: Reference) -> None:
        self[reference.name] = reference
