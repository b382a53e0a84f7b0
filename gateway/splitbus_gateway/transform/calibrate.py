"""Finds the transform of a tensor from calibration activations, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from splitbus_gateway.transform.basis import weighted_klt
from splitbus_gateway.transform.layout import find_layout
from splitbus_gateway.transform.quantise import SETTINGS, Transform, analyse, synthesise
from splitbus_gateway.transform.sensitivity import Answer, band_weight, channel_weight, like
from splitbus_gateway.transform.statistics import fit_tables
from splitbus_runtime.engine import Array
from splitbus_schemas.entropy import Coder, step_of
from splitbus_schemas.entropy_tables import Tables
from splitbus_schemas.errors import ModelError

MIN_SAMPLES = 8
PROBES = 12
"""Samples on which the answer's reaction is measured: once for each channel and band."""
_NEGLIGIBLE = 0.25  # of the finest step: a component whose deviation is less is never sent


@dataclass(frozen=True, eq=False)
class Calibrated:
    """All that the transform codec knows of one tensor at one cut, for every setting."""

    transform: Transform
    tables: Tables


def calibrate(values: Array, answer: Answer, *, probes: int = PROBES) -> Calibrated:
    """The codec of a tensor from activations (samples first) of at least MIN_SAMPLES inputs.

    Raises ModelError when they are too few, not finite, or all the same.
    """
    if len(values) < MIN_SAMPLES:
        raise ModelError(f"{len(values)} samples are too few to calibrate a codec: give at least {MIN_SAMPLES}")
    if not np.isfinite(values).all():
        raise ModelError("the activations of the calibration samples are not finite: give inputs that the model takes")
    transform = find_transform(values, answer, probes=probes)
    return Calibrated(transform, fit_tables(analyse(values, transform), transform))


def probe_rows(count: int, probes: int) -> list[int]:
    """Which of `count` samples the answer's reaction is measured on; an Answer is given these alone, in this order."""
    return [int(row) for row in np.linspace(0, count - 1, min(probes, count)).round()]


def find_transform(values: Array, answer: Answer, *, probes: int = PROBES) -> Transform:
    """The transform whose coefficients have a root mean square of 1. Raises ModelError when the values never differ."""
    layout = find_layout(values.astype(np.float32))
    few = values[probe_rows(len(values), probes)]
    weight = channel_weight(few, layout.channel, answer)
    channels = np.moveaxis(values.astype(np.float64), layout.channel, 0).reshape(len(weight), -1)
    mean = channels.mean(axis=1)
    centred = channels - mean[:, None]
    covariance = centred @ centred.T / centred.shape[1]
    if not np.trace(covariance) > 0:
        raise ModelError("the activations of the calibration samples are all the same: give samples that differ")
    forward, inverse = weighted_klt(covariance, weight)
    space = tuple(values.shape[axis] for axis in layout.space)
    transform = Transform(layout, mean, forward, inverse, np.ones(space))
    transform = _unit(values, transform)
    transform = _unit(values, replace(transform, weight=band_weight(few, transform, answer)))
    deviations = analyse(values, transform).std(axis=(0, *range(2, values.ndim)), dtype=np.float64)
    kept = deviations > _NEGLIGIBLE * step_of(min(SETTINGS))
    return replace(transform, forward=transform.forward[kept], inverse=transform.inverse[:, kept])


def rebuilt(values: Array, found: Calibrated, shift: int) -> Array:
    """What arrives of a tensor under a setting, in its own type; the reference for slices.

    Raises ValueError for values that are not coded but sent as they are.
    """
    coder, coefficients = Coder(found.tables), analyse(values, found.transform)
    frame = coder.encode(coefficients, shift)
    if frame is None:
        raise ValueError("values lie too many steps off, or are not finite: they are sent as they are")
    return like(synthesise(coder.decode(frame, coefficients.shape), found.transform), values)


def _unit(values: Array, transform: Transform) -> Transform:
    """The same with coefficients of root mean square 1."""
    scale = np.sqrt(np.mean(np.square(analyse(values, transform), dtype=np.float64)))
    return replace(transform, forward=transform.forward / scale, inverse=transform.inverse * scale)
