"""Other systems' policies, re-implemented from their papers as named baselines for `replay.py`.

Neurosurgeon: Y. Kang et al., "Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge", ASPLOS 2017.
    Layer times are not measured on the model but foretold, by a regression for each kind of layer over the features of
    its table 1, fitted to layers of other models timed one by one on the same machine; algorithm 1 then takes the one
    cut with the least sum of device, upload and server time. Tensors travel as floats; round trips, answers and the
    cost of coding are not counted; there is no hysteresis.
Dynamic Split Computing: A. Bakhtiarnia et al., "Dynamic Split Computing for Efficient Deep Edge Intelligence", 2022,
    arXiv 2205.11269. Natural bottlenecks alone, cuts that carry less than the input and all cuts before them; the
    fastest at the current rate, with both ends, the input and all on the device, allowed besides. Floats.
DynO-like: M. Almeida et al., "DynO: Dynamic Onloading of Deep Neural Networks from Cloud to Device", ACM TECS 2022.
    One cut, tensors at 8 bits packed losslessly, by the current rate. Their packing and scheduler are not rebuilt.

The last two are wholly in `splitbus_gateway.policies`; here is what only a benchmark can do for the first.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from splitbus_gateway.graph import ModelGraph, cut_at, extract, open_slice, random_feed
from splitbus_gateway.policies import POLICIES, Policy, neurosurgeon
from splitbus_runtime.engine import Array
from splitbus_schemas.errors import ModelError

Floats = NDArray[np.float64]

RUNS: Final = 5
LEAST_MS: Final = 1e-3
"""Of a layer: below this, a clock's own noise would rule the fit."""

_POOLS: Final = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean"}
_CONVOLUTIONS: Final = {"Conv", "ConvTranspose", "QLinearConv", "ConvInteger"}
_PRODUCTS: Final = {"Gemm", "MatMul", "QLinearMatMul", "MatMulInteger"}


@dataclass(frozen=True)
class Layer:
    """A layer as the regression sees it; `ms` as it was measured alone."""

    kind: str
    features: tuple[float, ...]
    ms: float = 0.0


def describe(graph: ModelGraph, step: NodeProto) -> Layer:
    """Kind and features of a step, without a time."""
    given, made = (sum(_size(graph, name) for name in names) for names in (step.input, step.output))
    if step.op_type in _CONVOLUTIONS:
        return Layer(_convolution(step), (given, _filters(graph, step), made))
    if step.op_type in _PRODUCTS:
        return Layer("fully-connected", (given, made, float(_weights(graph, step))))
    return Layer("pool" if step.op_type in _POOLS else "other", (given, made))


def _size(graph: ModelGraph, name: str) -> float:
    spec = graph.types.specs.get(name)
    return float(prod(spec.sizes)) if spec else 0.0


def _weights(graph: ModelGraph, step: NodeProto) -> int:
    return sum(prod(graph.weights[name].shape) for name in step.input if name in graph.weights)


def _convolution(step: NodeProto) -> str:
    groups = next((attribute.i for attribute in step.attribute if attribute.name == "group"), 1)
    return "convolution" if groups == 1 else "grouped convolution"


def _filters(graph: ModelGraph, step: NodeProto) -> float:
    """What the paper calls (filter size / stride)^2 x filters, times the input: the multiplications."""
    return sum(_size(graph, name) for name in step.output) * max(
        (prod(graph.weights[name].shape[1:]) for name in step.input if name in graph.weights), default=1
    )


def time_layers(graph: ModelGraph) -> list[Layer]:
    """Every layer that can be cut out alone, timed alone on one thread; less what the least of them takes, a call."""
    values: dict[str, Array] = dict(random_feed(graph.inputs))
    found = []
    for index, step in enumerate(graph.topology.steps):
        if not (cut_at(graph, index).legal and cut_at(graph, index + 1).legal):
            continue
        try:
            ms = _time(graph, index, values)
        except (ModelError, KeyError):
            continue  # it reads what a layer that could not be cut out would have given
        layer = describe(graph, step)
        found.append(Layer(layer.kind, layer.features, ms))
    call_ms = min((layer.ms for layer in found), default=0.0)
    return [replace(layer, ms=layer.ms - call_ms) for layer in found]


def _time(graph: ModelGraph, index: int, values: dict[str, Array]) -> float:
    """Milliseconds of one step; its outputs join `values`."""
    session = open_slice(extract(graph, index, index + 1), threads=1)
    feed = {info.name: values[info.name] for info in session.inputs}
    values.update(zip([info.name for info in session.outputs], session.run(feed), strict=True))
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        session.run(feed)
        times.append((time.perf_counter() - started) * 1e3)
    return float(np.median(times))


class Regression:
    """Foretells layers' times from their features: one linear fit for each kind, in relative error."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._fits: dict[str, Floats] = {}
        kinds: dict[str, list[Layer]] = {}
        for layer in layers:
            kinds.setdefault(layer.kind, []).append(layer)
        for kind, known in kinds.items():
            times = np.array([max(layer.ms, LEAST_MS) for layer in known])
            rows = np.array([(1.0, *layer.features) for layer in known])
            self._fits[kind] = np.linalg.lstsq(rows / times[:, None], np.ones(len(known)), rcond=None)[0]

    def ms(self, layer: Layer) -> float:
        """What the layer will take; nothing for a kind that was never seen."""
        fit = self._fits.get(layer.kind)
        return 0.0 if fit is None else max(0.0, float(fit @ np.array((1.0, *layer.features))))

    def elapsed(self, graph: ModelGraph, cuts: Sequence[int]) -> Floats:
        """Milliseconds from the input to each cut."""
        layers = [self.ms(describe(graph, step)) for step in graph.topology.steps]
        return np.concatenate([[0.0], np.cumsum(layers)])[list(cuts)]


def rivals(
    graph: ModelGraph, cuts: Sequence[int], regression: Regression, slowness: Mapping[str, float]
) -> list[Policy]:
    """All named policies, Neurosurgeon with its regression; `slowness` of each node is relative to this machine."""
    foretold = {node: regression.elapsed(graph, cuts) * factor for node, factor in slowness.items()}
    informed = partial(neurosurgeon, predicted=foretold)
    return [
        Policy(policy.name, f"{policy.about}, layer times by regression", informed)
        if policy.choose is neurosurgeon
        else policy
        for policy in POLICIES
    ]
