"""Says whether a detector still finds the same things: for splitbus model add --measure.

    splitbus model add faces ultraface.onnx --calibrate pictures.npz --measure examples/detector_measure.py:same_faces

The function is called once for each sample and codec, with the outputs by name of the un-split model and of the split
one. It returns True when the second is as good as the first: what either of them is sure of, the other has found as
well, though it need not be as sure. Raw outputs are no boxes: each function first does what an application does.

same_boxes    models whose own graph ends in boxes (left, top, right, bottom) and scores, as `boxes` and `scores`
same_faces    UltraFace (320 x 240, without post-processing): offsets from a fixed grid of boxes
same_objects  FastestDet: one map of objectness, offsets and classes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Outputs = Mapping[str, Floats]

OVERLAP = 0.5
"""Boxes over each other by this share of their common area are one thing."""
UNSURE = 0.2
"""What one answer is sure of, the other may score by so much less: a hard threshold on both would call 0.71 and 0.69
different answers."""


@dataclass(frozen=True)
class Found:
    """Boxes (left, top, right, bottom) with their scores and classes."""

    boxes: Floats
    scores: Floats
    classes: NDArray[np.intp]

    def above(self, score: float) -> "Found":
        """Those that score more."""
        kept = self.scores > score
        return Found(self.boxes[kept], self.scores[kept], self.classes[kept])


def same_boxes(expected: Outputs, found: Outputs) -> bool:
    """Boxes as they are; the last class is the one looked for."""
    return agree(corner_boxes(expected), corner_boxes(found), sure=0.7)


def same_faces(expected: Outputs, found: Outputs) -> bool:
    """Faces of UltraFace."""
    return agree(faces(expected), faces(found), sure=0.7)


def same_objects(expected: Outputs, found: Outputs) -> bool:
    """Objects of FastestDet."""
    return agree(objects(expected), objects(found), sure=0.65)


def agree(expected: Found, found: Found, sure: float) -> bool:
    """Whether each has whatever the other is sure of."""
    return covered(expected, found, sure) and covered(found, expected, sure)


def covered(wanted: Found, got: Found, sure: float) -> bool:
    """Whether every sure box of one has a box of the same class, over most of it, that the other is not unsure of."""
    wanted, got = wanted.above(sure), got.above(sure - UNSURE)
    alike = overlaps(wanted.boxes, got.boxes) >= OVERLAP
    return bool((alike & (wanted.classes[:, None] == got.classes)).any(axis=1).all())


def overlaps(boxes: Floats, others: Floats) -> Floats:
    """Of each box with each other: the area that is common to both over the area of both together."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=2)
    union = area(boxes)[:, None] + area(others) - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def area(boxes: Floats) -> Floats:
    """Of each box; 0 for what is none."""
    return np.asarray(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))


# What models answer ---------------------------------------------------------------------------------------------------


def corner_boxes(answer: Outputs) -> Found:
    """Outputs `boxes` [1, N, 4] and `scores` [1, N, classes]. Boxes without an area are none."""
    boxes, scores = answer["boxes"][0], answer["scores"][0, :, -1]
    real = area(boxes) > 0
    return Found(boxes[real], scores[real], np.zeros(int(real.sum()), np.intp))


def faces(answer: Outputs) -> Found:
    """UltraFace's: `boxes` are offsets from its grid, in tenths of a box, and logarithms of sizes, in fifths."""
    grid, offsets = ultraface_grid(), answer["boxes"][0]
    centres = grid[:, :2] + offsets[:, :2] * 0.1 * grid[:, 2:]
    sizes = grid[:, 2:] * np.exp(offsets[:, 2:] * 0.2)
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32)
    return Found(boxes, answer["scores"][0, :, 1], np.zeros(len(boxes), np.intp))


@cache
def ultraface_grid(width: int = 320, height: int = 240) -> Floats:
    """Its boxes (centre, size) in shares of the picture: several sizes at each place, place by place, map by map."""
    maps = {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}
    rows = [
        ((column + 0.5) * stride / width, (row + 0.5) * stride / height, side / width, side / height)
        for stride, sides in maps.items()
        for row in range(-(-height // stride))
        for column in range(-(-width // stride))
        for side in sides
    ]
    return np.array(rows, np.float32)


def objects(answer: Outputs) -> Found:
    """FastestDet's only output [1, 5 + classes, height, width]: objectness, two offsets, two sizes, classes."""
    maps = next(iter(answer.values()))[0]
    height, width = maps.shape[1:]
    rows, columns = np.mgrid[:height, :width]
    scores = maps[0] ** 0.6 * maps[5:].max(axis=0) ** 0.4
    centre_x, centre_y = (columns + np.tanh(maps[1])) / width, (rows + np.tanh(maps[2])) / height
    half_x, half_y = (1 / (1 + np.exp(-maps[axis])) / 2 for axis in (3, 4))
    sides = [centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y]
    boxes = np.stack([side.ravel() for side in sides], axis=1).astype(np.float32)
    return Found(boxes, scores.ravel(), maps[5:].argmax(axis=0).ravel())
