"""A camera without a camera: photographs that scikit-image ships, panned and zoomed into an endless stream."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitbus_schemas.errors import ConfigError

Pixels = NDArray[np.uint8]

FRAMES_PER_SHOT: Final = 40
"""Frames until the stream turns to another photograph: four seconds at ten frames a second."""


@dataclass(frozen=True)
class Window:
    """A square part of a photograph: left edge, top edge and side, in pixels."""

    x: float
    y: float
    side: float

    def towards(self, other: Window, share: float) -> Window:
        """The window on the straight way to `other`, 0 here and 1 there."""

        def between(a: float, b: float) -> float:
            return a + (b - a) * share

        return Window(between(self.x, other.x), between(self.y, other.y), between(self.side, other.side))


@dataclass(frozen=True)
class Shot:
    """A camera movement over one photograph of scikit-image's `data` folder."""

    photograph: str
    start: Window
    end: Window


SHOTS: Final = (
    Shot("coffee.png", Window(0, 30, 280), Window(160, 100, 200)),
    Shot("motorcycle_left.png", Window(0, 0, 350), Window(0, 112, 350)),
    Shot("chelsea.png", Window(36, 7, 270), Window(216, 120, 180)),
    Shot("astronaut.png", Window(237, 297, 215), Window(256, 256, 256)),
    Shot("rocket.jpg", Window(205, 129, 298), Window(230, 128, 256)),
    Shot("coffee.png", Window(192, 30, 360), Window(80, 50, 200)),
    Shot("motorcycle_left.png", Window(116, 37, 450), Window(196, 125, 250)),
    Shot("chelsea.png", Window(0, 120, 180), Window(216, 100, 200)),
    Shot("astronaut.png", Window(205, 153, 307), Window(256, 256, 256)),
)
"""Views that show one thing of ImageNet's classes at a time, as a camera over a door or a belt would."""


class PictureStream:
    """The same frames for the same seed; any frame may be asked for, in any order."""

    def __init__(self, seed: int = 0, *, frames_per_shot: int = FRAMES_PER_SHOT) -> None:
        self._first = seed % len(SHOTS)
        self._frames_per_shot = frames_per_shot

    def frame(self, index: int, *, height: int = 224, width: int = 224) -> Pixels:
        """RGB, uint8 [height, width, 3]."""
        number, step = divmod(index, self._frames_per_shot)
        shot = SHOTS[(self._first + number) % len(SHOTS)]
        window = shot.start.towards(shot.end, ease(step / self._frames_per_shot))
        box = (window.x, window.y, window.x + window.side, window.y + window.side)
        view = _photograph(shot.photograph).resize((width, height), Image.Resampling.BILINEAR, box=box)
        return np.asarray(view)


def ease(share: float) -> float:
    """From 0 to 1 with a soft start and a soft stop."""
    return share * share * (3 - 2 * share)


@cache
def _photograph(name: str) -> Image.Image:
    try:
        with resources.files("skimage").joinpath("data", name).open("rb") as file:
            return Image.open(file).convert("RGB")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise ConfigError(
            f"the demo's photograph {name} is not installed: run pip install 'splitbus[demo]' (or scikit-image)"
        ) from error
