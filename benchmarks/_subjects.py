"""A model with its pictures, as the codec's benchmarks measure it: what it is given, what it answers, what counts."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from _twice import Frames
from PIL import Image, ImageOps

from splitbus_gateway.graph import ModelGraph, extract, load_graph, open_slice
from splitbus_gateway.measures import Measure, load_measure
from splitbus_gateway.walk import run_named
from splitbus_runtime.engine import Array, Session
from splitbus_runtime.sameness import is_scores, lead, same_answer

T = TypeVar("T")
Shades = float | tuple[float, float, float]

PREPARED: Mapping[str, tuple[Shades, Shades, bool]] = {
    "efficientnet": (127.0, 128.0, False),
    "mobilenet": (0.0, 255.0, False),
    "resnet8": (0.0, 1.0, False),
    "ultraface": (127.0, 128.0, False),
    "fastestdet": (0.0, 255.0, True),
    "vit_s": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False),
}
"""By the beginning of a file's name: mean, divisor, and whether channels are BGR. Others are taken from 0 to 1."""

_EXAMPLE = Path(__file__).parents[1] / "examples" / "detector_measure.py"
MEASURES: Mapping[str, str] = {
    "ultraface": f"{_EXAMPLE}:same_faces",
    "fastestdet": f"{_EXAMPLE}:same_objects",
}
"""By the beginning of a file's name: what counts as the same answer, where --measure does not say so."""

MARGIN = 256 / 224
"""Pictures are read so much larger than the model's input."""

VIEWS = ((0.5, 0.5, False), (0.5, 0.5, True), (0, 0, False), (1, 1, True), (0, 1, False), (1, 0, True))
"""Where a view lies, and whether it is mirrored."""

Answers = list[dict[str, Array]]


@dataclass(frozen=True)
class Point:
    """A setting of a way to send: mean bytes, and what the answers keep."""

    setting: str
    size: float
    agreement: float
    accuracy: float
    frames: Frames | None = None
    """What it comes of, one by one."""


@dataclass(frozen=True)
class Subject:
    """A model and its pictures (uint8 RGB), the reported ones with the un-split model's answers."""

    graph: ModelGraph
    name: str
    calibration: list[Array]
    pictures: list[Array]
    labels: list[int]
    whole: Session
    expected: Answers
    measure: Measure | None = None

    def feed(self, pixels: Array) -> dict[str, Array]:
        """What the model is given of a picture."""
        return prepare(self.graph, self.name, pixels)

    def point(self, setting: str, sizes: Sequence[int], found: Answers) -> Point:
        """How good a setting is that sent so many bytes and led to these answers."""
        holds = self.measure.holds if self.measure else _same
        same = [holds(*pair) for pair in zip(self.expected, found, strict=True)]
        frames = Frames(np.array(sizes), np.array(same), np.array([lead(list(answer.values())) for answer in found]))
        return Point(setting, float(np.mean(sizes)), float(np.mean(same)), self.accuracy(found), frames)

    def accuracy(self, found: Answers) -> float:
        """The share of right answers; not a number without labels."""
        if not self.labels:
            return float("nan")
        best = [int(next(iter(answer.values())).argmax()) for answer in found]
        return float(np.mean(np.array(best) == self.labels))

    def within_a_point(self, points: Sequence[Point]) -> list[Point]:
        """Those that lose one point of accuracy at most; without labels, one answer in a hundred."""
        whole = self.accuracy(self.expected)
        return [p for p in points if (p.agreement if np.isnan(whole) else 1 - whole + p.accuracy) >= 0.99 - 1e-9]


def prepare(graph: ModelGraph, name: str, pixels: Array) -> dict[str, Array]:
    """What the model of that file is given of a picture (uint8 RGB)."""
    mean, divisor, bgr = by_name(PREPARED, name) or (0.0, 255.0, False)
    values = (pixels[..., ::-1] if bgr else pixels).astype(np.float32)
    less, by = np.asarray(mean, np.float32), np.asarray(divisor, np.float32)
    values = np.moveaxis((values - less) / by, -1, 0)
    return {graph.inputs[0].name: np.ascontiguousarray(values[None], np.float32)}


def by_name(table: Mapping[str, T], name: str) -> T | None:
    """What stands in the table for a file of that name."""
    return next((found for key, found in table.items() if name.startswith(key)), None)


def _same(expected: Mapping[str, Array], found: Mapping[str, Array]) -> bool:
    return same_answer(list(expected.values()), [found[name] for name in expected])


def read_subject(path: Path, options: Namespace) -> Subject:
    """The model with its pictures."""
    graph = load_graph(path)
    height, width = graph.inputs[0].sizes[-2:]
    pictures, labels = _arrays(options, (height, width)) or _photographs(options, (height, width))
    whole = open_slice(extract(graph, 0, graph.steps), threads=1)
    calibration = [view for picture in pictures[::2] for view in _views(picture, (height, width), 2)]
    reported = [view for picture in pictures[1::2] for view in _views(picture, (height, width), options.views)]
    expected = [run_named(whole, prepare(graph, path.stem, pixels)) for pixels in reported]
    if not _has_classes(expected[0], labels):
        labels = []
    repeated = [label for label in labels[1::2] for _ in range(options.views)]
    chosen = options.measure or by_name(MEASURES, path.stem)
    measure = load_measure(chosen) if chosen else None
    return Subject(graph, path.stem, calibration, reported, repeated, whole, expected, measure)


def _has_classes(answer: Mapping[str, Array], labels: Sequence[int]) -> bool:
    """Whether the labels can be this model's: those of one folder are not for all models."""
    first = next(iter(answer.values()))
    return bool(labels) and is_scores(first) and first.shape[1] > max(labels)


def _arrays(options: Namespace, size: tuple[int, int]) -> tuple[list[Array], list[int]] | None:
    for path in sorted(options.images.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            pictures = stored["x"][: options.limit] if "x" in stored else np.empty(0)
            if pictures.shape[1:] == (3, *size):
                pictures = np.moveaxis(pictures, 1, -1)
            if pictures.shape[1:] == (*size, 3):
                return list(pictures.astype(np.uint8)), [int(label) for label in stored["y"][: options.limit]]
    return None


def _photographs(options: Namespace, size: tuple[int, int]) -> tuple[list[Array], list[int]]:
    paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    paths = paths[: options.limit]
    larger = (round(size[1] * MARGIN), round(size[0] * MARGIN))
    pictures = [np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), larger)) for path in paths]
    if options.labels is None:
        return pictures, []
    with options.labels.open(encoding="utf-8") as lines:
        known = {row["file"]: int(row["class_index"]) for row in csv.DictReader(lines)}
    return pictures, [known[path.name] for path in paths]


def _views(picture: Array, size: tuple[int, int], count: int) -> list[Array]:
    """The middle, the same mirrored, then the corners."""
    spare = picture.shape[0] - size[0], picture.shape[1] - size[1]
    views = []
    for down, right, mirrored in VIEWS[:count]:
        top, left = round(spare[0] * down), round(spare[1] * right)
        view = picture[top : top + size[0], left : left + size[1]]
        views.append(view[:, ::-1] if mirrored else view)
    return views
