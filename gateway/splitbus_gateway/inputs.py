"""What a model is calibrated and measured on, of what its owner gives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from splitbus_gateway.graph import TensorSpec
from splitbus_gateway.judging import Judge
from splitbus_gateway.labels import read_labels
from splitbus_gateway.measures import Measure
from splitbus_gateway.samples import Feed, Given, read_samples, synthetic_samples
from splitbus_schemas.errors import ModelError

CALIBRATION_SAMPLES: Final = 256
"""Beyond, calibrating takes longer and finds nothing new."""

_MEASURED: Final = 2  # times as many held-out inputs as samples without calibration: agreement is a promise there


@dataclass(frozen=True)
class Inputs:
    """What a model is measured on, what its transforms are found from, and how its answers are judged.

    `given` is all that was given for calibration, measured on or not.
    """

    measured: Sequence[Feed]
    calibration: Sequence[Feed]
    judge: Judge
    given: Sequence[Feed] = ()

    @property
    def digest(self) -> str:
        """The same for the same inputs, judged alike."""
        return _digest([*self.measured, *self.calibration], self.judge)


@dataclass(frozen=True)
class Offer:
    """What the owner gives: `samples` to measure on, `calibrate` to calibrate, and how answers are judged.

    Without samples, every second input of `calibrate` is measured on. `labels` belong to what is measured.
    """

    samples: Given | None = None
    calibrate: Given | None = None
    labels: Path | None = None
    measure: Measure | None = None

    def inputs(self, specs: Sequence[TensorSpec], count: int) -> Inputs:
        """`count` samples, up to twice as many held out from calibration. Raises ModelError."""
        given = [] if self.calibrate is None else read_samples(self.calibrate, specs, CALIBRATION_SAMPLES)
        if self.samples is not None:
            measured = read_samples(self.samples, specs, count)
            return Inputs(measured, given, self._judge(self.samples, len(measured), count), given)
        if self.calibrate is not None:
            judge = self._judge(self.calibrate, len(given), CALIBRATION_SAMPLES)
            held_out = slice(1, 2 * count * _MEASURED, 2)
            labels = None if judge.labels is None else judge.labels[held_out]
            return Inputs(given[held_out], given[::2], Judge(labels, judge.measure), given)
        if self.labels is not None:
            raise ModelError("labels belong to inputs that are given: give them with --samples or --calibrate")
        return Inputs(synthetic_samples(specs, count), [], Judge(None, self.measure))

    def _judge(self, source: Given, count: int, limit: int) -> Judge:
        labels = None if self.labels is None else tuple(read_labels(self.labels, source, count, limit))
        return Judge(labels, self.measure)


def _digest(feeds: Iterable[Feed], judge: Judge) -> str:
    digest = hashlib.sha256()
    for feed in feeds:
        for name, array in sorted(feed.items()):
            digest.update(f"{name}\0{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    if judge.labels is not None or judge.measure is not None:
        digest.update(repr((judge.labels, judge.measure.name if judge.measure else None)).encode())
    return digest.hexdigest()
