"""Calibrates the transform codec for the tensors of a model, at the cuts where it can win."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from splitbus_gateway.graph import Cut, ModelGraph, extract, open_slice
from splitbus_gateway.samples import Feed
from splitbus_gateway.transform.calibrate import MIN_SAMPLES, Calibrated, calibrate, probe_rows
from splitbus_gateway.transform.layout import MIN_ELEMENTS, find_layout, objection
from splitbus_gateway.transform.sensitivity import Answer
from splitbus_gateway.walk import Here, run_each, walk
from splitbus_runtime.engine import Array
from splitbus_schemas.errors import ModelError

log = logging.getLogger(__name__)

MAX_CUTS: Final = 16

_ALIKE: Final = 0.02  # a token more or less among hundreds makes no other cut
_PARTS: Final = 4

RUNS: Final = 1024
"""Of a model's tail, to learn how strongly its answer reacts to each channel of a tensor: a second or two a cut."""

_PROBES: Final = (8, 48)  # the fewest that tell channels apart; beyond the most, nothing is gained

MAX_VALUES: Final = 2**23
"""Of a tensor, over all samples: 32 MB, and four times that while its covariance is found."""


def calibrate_cuts(
    graph: ModelGraph,
    cuts: Sequence[Cut],
    samples: Sequence[Feed],
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Calibrated]:
    """What the codec knows of each tensor that it fits, by name; the others are sent by a simpler one.

    Raises ModelError for too few samples, and when the model cannot be run on them.
    """
    if len(samples) < MIN_SAMPLES:
        raise ModelError(f"{len(samples)} samples are too few to calibrate on: give at least {MIN_SAMPLES}")
    found: dict[str, Calibrated] = {}
    chosen = promising(cuts)
    for done, here in enumerate(walk(graph, chosen, samples)):
        progress(done, len(chosen))
        tensors = [tensor for tensor in here.cut.tensors if tensor.name not in found and not objection(tensor)]
        for tensor in tensors:
            try:
                found[tensor.name] = _calibrate(graph, here, tensor.name)
            except ModelError as error:
                log.info("cut %d: %s is not transformed: %s", here.cut.index, tensor.name, error)
    progress(len(chosen), len(chosen))
    return found


def promising(cuts: Sequence[Cut], limit: int = MAX_CUTS) -> list[Cut]:
    """The cuts that carry fewer values than any before them, but for the input, whose values are other ones.

    A later cut that carries more only costs. Of those that carry about as few, the last is kept as well, for its values
    differ most from the first one's, and one in each quarter of the model: the planner may weigh them. Of too many,
    those that carry less are kept.
    """
    runs: list[list[Cut]] = []
    best = begun = float("inf")
    for cut in cuts:
        size = _values(cut)
        if any(not objection(tensor) for tensor in cut.tensors):
            if size < best and size < begun * (1 - _ALIKE):
                runs.append([cut])
                begun = size if cut.index else begun
            elif size <= best * (1 + _ALIKE) and runs and runs[-1][0].index:
                runs[-1].append(cut)
        best = min(best, size) if cut.index else best
    between = cuts[-1].index / _PARTS if cuts else 0.0
    less, alike = [run[0] for run in runs], [cut for run in runs for cut in _spread(run, between)]
    return sorted([*less, *alike][:limit], key=lambda cut: cut.index)


def _values(cut: Cut) -> int:
    """What crosses; without the few of shapes and the like."""
    return sum(tensor.elements for tensor in cut.tensors if tensor.elements >= MIN_ELEMENTS)


def _spread(run: Sequence[Cut], between: float) -> list[Cut]:
    """The last of those that carry as many, and of the others those so far apart; never the first."""
    kept = [run[0]]
    for cut in run[1:-1]:
        if cut.index - kept[-1].index >= between:
            kept.append(cut)
    return [*kept[1:], *run[1:][-1:]]


def _calibrate(graph: ModelGraph, here: Here, name: str) -> Calibrated:
    values = [value[name] for value in here.values]
    if {array.shape for array in values} != {(1, *values[0].shape[1:])}:
        raise ModelError("its shape is not that of one sample")
    count = int(np.clip(MAX_VALUES // max(values[0].size, 1), MIN_SAMPLES, len(values)))
    rows = np.linspace(0, len(values) - 1, count).round().astype(int)
    taken = Here(here.cut, [here.values[row] for row in rows], [here.done[row] for row in rows])
    stacked = np.concatenate([values[row] for row in rows])
    probes = probe_count(stacked.shape[find_layout(stacked.astype(np.float32)).channel])
    return calibrate(stacked, _answer(graph, taken, name, probe_rows(count, probes)), probes=probes)


def probe_count(channels: int) -> int:
    """On how many samples the answer's reaction to each channel is measured: more where there are few channels."""
    return int(np.clip(RUNS // channels, *_PROBES))


def _answer(graph: ModelGraph, here: Here, name: str, rows: Sequence[int]) -> Answer:
    """The model's answers for other values of a tensor in these samples, each output in units of its own size."""
    session = open_slice(extract(graph, here.cut.index, graph.steps), threads=1)
    outputs = [info.name for info in session.outputs]
    others = [here.values[row] for row in rows]
    scales: dict[str, float] = {}

    def run(values: Array) -> Array:
        found = run_each(session, [other | {name: value[None]} for other, value in zip(others, values, strict=True)])
        for output in outputs if not scales else ():
            scales[output] = _size([answer[output] for answer in found])
        return np.stack([_flat(answer, scales) for answer in found])

    return run


def _size(arrays: Sequence[Array]) -> float:
    """The deviation over the samples, or what there is of a root mean square; 1 for zeros."""
    stacked = np.stack([np.asarray(array, np.float64).ravel() for array in arrays])
    spread = float(np.sqrt(np.mean(np.square(stacked - stacked.mean(axis=0))))) if stacked.size else 0.0
    return spread if np.isfinite(spread) and spread > 0 else 1.0


def _flat(answer: Mapping[str, Array], scales: Mapping[str, float]) -> Array:
    parts = [np.asarray(answer[name], np.float64).ravel() / (scale * answer[name].size**0.5 or 1.0)
             for name, scale in scales.items()]  # fmt: skip
    return np.concatenate(parts)
