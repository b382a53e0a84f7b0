"""Times a model on this node, block by block between neighbouring cuts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from splitbus_runtime.engine import Array
from splitbus_runtime.shelf import Shelf, Slice
from splitbus_schemas.messages import NodeProfile, ProfileRequest, TensorSpec

RUNS: Final = 7
"""Enough for a median and quartiles; more would keep a slow camera busy for seconds."""

WARM_UPS: Final = 2
"""The first runs allocate."""

MAX_SECONDS_PER_BLOCK: Final = 0.5
"""A block so slow needs no seven runs."""


def profile(
    request: ProfileRequest, shelf: Shelf, *, node: str, boot: str, stopping: Callable[[], bool]
) -> NodeProfile:
    """Run every block on the outputs of those before it; scale the times so that they sum to the whole model's.

    Running apart costs what onnxruntime saves by fusing across a cut, hence the scale. Raises BlobError or ModelError.
    """
    whole = shelf.open(request.whole)
    live = {spec.name: sample(spec) for spec in whole.manifest.inputs}
    whole_ms = statistics.median(_time(whole, live, stopping))
    del whole
    medians, spreads = [], []
    for block_id in request.blocks:
        block = shelf.open(block_id)
        times = _time(block, live, stopping)
        live.update({name: array for name, array, _ in block.run(live)})
        medians.append(statistics.median(times))
        spreads.append(_interquartile(times))
    scale = whole_ms / (sum(medians) or 1.0)
    return NodeProfile(
        node=node,
        boot=boot,
        model=request.model,
        cuts=request.cuts,
        block_ms=[round(value * scale, 4) for value in medians],
        spread_ms=[round(value * scale, 4) for value in spreads],
        whole_ms=round(whole_ms, 4),
        runs=RUNS,
    )


def sample(spec: TensorSpec) -> Array:
    """A tensor to run a model on when nothing better is at hand; unknown sizes are 1."""
    shape = [1 if size is None else size for size in spec.shape]
    if np.dtype(spec.dtype).kind == "f":
        return np.random.default_rng(0).random(shape, dtype=np.float32).astype(spec.dtype)
    return np.zeros(shape, dtype=spec.dtype)


def _time(block: Slice, live: dict[str, Array], stopping: Callable[[], bool]) -> list[float]:
    """Milliseconds of each run."""
    times: list[float] = []
    begun = time.perf_counter()
    for turn in range(WARM_UPS + RUNS):
        if stopping() or (len(times) >= 3 and time.perf_counter() - begun > MAX_SECONDS_PER_BLOCK):
            break
        started = time.perf_counter()
        block.run(live)
        if turn >= WARM_UPS:
            times.append((time.perf_counter() - started) * 1e3)
    return times or [0.0]


def _interquartile(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4)
    return high - low
