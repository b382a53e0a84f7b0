"""What takes long when a model is added, as it is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

Telling: TypeAlias = Callable[[str, int, int], None]
"""What is done, at how many cuts it was done, and at how many it will be."""

CALIBRATING: Final = "finding the transform of each cut"
MEASURING: Final = "measuring every codec at every cut"
REBUILDING: Final = "rebuilding pictures from what cuts show"


def untold(_what: str, _done: int, _total: int) -> None:
    """Nobody listens."""
