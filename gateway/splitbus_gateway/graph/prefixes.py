"""Puts a graph's steps into an order of which its best cuts, by static measures, are beginnings: cuts are by number."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from onnx import GraphProto

from splitbus_gateway.graph.mincut import Tensor
from splitbus_gateway.graph.nested import Measure, nested_cuts
from splitbus_gateway.graph.shapes import Types
from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_gateway.graph.topology import Topology, rearrange
from splitbus_gateway.graph.work import step_work

# As they are, and as an 8-bit codec carries them.
_SIZES: tuple[Callable[[TensorSpec], int], ...] = (
    lambda spec: spec.nbytes,
    lambda spec: spec.elements if spec.is_float else spec.nbytes,
)

_WORTH = 0.01  # a cut that saves less is not worth another order than the file's


def with_best_cuts(graph: GraphProto, topology: Topology, types: Types) -> Topology:
    """The topology with its steps in an order of which the cuts found are beginnings; a chain's stays as it is."""
    return rearrange(graph, topology, best_cuts(graph, topology, types))


def best_cuts(graph: GraphProto, topology: Topology, types: Types) -> tuple[frozenset[int], ...]:
    """The steps before each of the cuts that are best for some machines and some rate, smallest first, nested.

    Work is multiply-accumulates; where these leave a choice, values moved, which bind steps that wait for memory.
    """
    work = step_work(topology, graph, types)
    counts = (tuple(step.macs for step in work), tuple(step.moved for step in work))
    measures = [Measure(count, _tensors(topology, types, size)) for count in counts for size in _SIZES]
    return nested_cuts(measures, worth=_WORTH)


def _tensors(topology: Topology, types: Types, size: Callable[[TensorSpec], int]) -> tuple[Tensor, ...]:
    """What may cross; an output goes to the end of the route, as part of the answer, whoever makes it."""
    readers: dict[str, list[int]] = {name: [] for name in topology.produced}
    for step, names in enumerate(topology.reads):
        for name in names:
            readers[name].append(step)
    tensors = []
    for name, steps in readers.items():
        if steps or name in topology.outputs:
            nbytes = size(types.specs[name]) if name in types.specs else inf
            producer = topology.produced[name] - 1 if topology.produced[name] else None
            tensors.append(Tensor(nbytes, producer, tuple(steps), "end" if name in topology.outputs else "inside"))
    return tuple(tensors)
