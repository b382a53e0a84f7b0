"""Says whether a face detector still finds the same faces: for splitbus model add --measure.

    splitbus model add faces ultraface.onnx --calibrate pictures.npz --measure examples/detector_measure.py:same_boxes

The function is called once for each sample and codec, with the outputs by name of the un-split model and of the split
one. It returns True when the second is as good as the first.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, NDArray[np.float32]]
Boxes = NDArray[np.float32]

CONFIDENT = 0.7
OVERLAP = 0.5


def same_boxes(expected: Outputs, found: Outputs) -> bool:
    """Every confident box of one answer has a confident box of the other over most of it."""
    wanted, got = confident_boxes(expected), confident_boxes(found)
    return all(covered(wanted, got)) and all(covered(got, wanted))


def confident_boxes(answer: Outputs) -> Boxes:
    """Boxes (left, top, right, bottom) whose score for the last class is high."""
    scores = answer["scores"][0, :, -1]
    return answer["boxes"][0][scores > CONFIDENT]


def covered(boxes: Boxes, others: Boxes) -> list[bool]:
    """For each box, whether one of the others overlaps it well."""
    return [len(others) > 0 and bool(overlap(box, others).max() >= OVERLAP) for box in boxes]


def overlap(box: Boxes, others: Boxes) -> Boxes:
    """The area that is common to both over the area of both together."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.maximum(high - low, 0).prod(axis=1)
    return np.asarray(common / (area(box[None]) + area(others) - common + 1e-9))


def area(boxes: Boxes) -> Boxes:
    """Of each box."""
    return np.asarray(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))
