"""Terms of gateways, and the epochs of plans that belong to each: a later term's are above all of an earlier one's."""

from __future__ import annotations

import zlib
from typing import Final

EPOCHS_PER_TERM: Final = 1_000_000
"""A plan a second for eleven days; then epochs run into the next term's, and only grow on."""

TERMS_PER_ROUND: Final = 1_000
"""One for each gateway that may claim a round: even two that both think that they won it have terms of their own."""


def base_epoch(term: int) -> int:
    """The epochs of a term are above this."""
    return term * EPOCHS_PER_TERM


def term_of(epoch: int) -> int:
    """The term in which a plan was given this epoch; 0 before there were terms."""
    return epoch // EPOCHS_PER_TERM


def number_of(epoch: int) -> int:
    """Which plan of its term it is: what people count."""
    return epoch % EPOCHS_PER_TERM


def term_in(round_: int, boot: str) -> int:
    """The term with which that run of a gateway claims a round."""
    return round_ * TERMS_PER_ROUND + zlib.crc32(boot.encode()) % TERMS_PER_ROUND


def round_of(term: int) -> int:
    """The round that a term belongs to."""
    return term // TERMS_PER_ROUND
