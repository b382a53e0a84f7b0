"""How a sender rounds coefficients to whole steps: a magnitude that costs many bits has to lie closer to be taken.

Between two whole numbers the larger one is nearly always the rarer one, and costs more bits. It is taken from half a
step below on, plus a PRICE for each bit that it costs more. The format leaves the choice to the sender; readers do not
know of it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.entropy_tables import Tables

PRICE: Final = 0.03
"""Steps for a bit. The least squared error at equal bytes asks for about twice that, but coefficients that are made
zero take energy from the tensor, and a network's answers suffer more from that than from as much noise."""

MOST_OFF: Final = 0.9
"""Steps by which an integer may be off its value: a rare coefficient is not lost before it is nearly a step large."""


def reaches(tables: Tables, shift: int) -> NDArray[np.float32]:
    """By how many steps each coefficient may fall short of a magnitude that it is still given; (coefficients,).

    A half is rounding to the nearest. Above 0 always, so that whole numbers stay what they are. A half for what the
    tables leave out: a large one makes all be sent, and must still be large when it is passed on.
    """
    bits = np.array([np.log2(float(table[0])) - np.log2(float(table[1])) for table in tables.frequencies])
    by_table = np.clip(0.5 - PRICE * bits, 1 - MOST_OFF, 0.5).astype(np.float32)
    number = tables.levels.ravel().astype(np.int16) - shift - tables.first
    return np.where(number < 0, np.float32(0.5), by_table[np.clip(number, 0, len(by_table) - 1)])


def whole_steps(scaled: NDArray[np.float32], reach: Any) -> NDArray[np.int16]:
    """Integers for values in steps, of magnitudes below 32767; `reach` is one for all, or broadcasts."""
    found: NDArray[np.int16] = (scaled + np.copysign(reach, scaled)).astype(np.int16)  # which cuts off towards zero
    return found
