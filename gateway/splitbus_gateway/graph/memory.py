"""What the slice from a model's input to a cut takes in memory. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from splitbus_gateway.graph.model import ModelGraph
from splitbus_gateway.graph.topology import uses


def memory_bytes(graph: ModelGraph, cuts: Sequence[int]) -> list[int]:
    """For each cut, in order, the bytes of the weights needed before it and of the tensors alive at once there.

    A tensor lives from the step that makes it to the last one that reads it; one of unknown size counts as nothing.
    """
    topology = graph.topology
    total, peak, live = [0], [0], _size(graph, (spec.name for spec in graph.inputs))
    weights: set[str] = set()
    for number, (step, reads) in enumerate(zip(topology.steps, topology.reads, strict=True), start=1):
        made = _size(graph, step.output)
        peak.append(max(peak[-1], live + made))
        names = {*reads, *step.output}
        live += made - _size(graph, (name for name in names if topology.last_use.get(name, number) == number))
        new = set(_weights(graph, uses(step))) - weights
        weights |= new
        total.append(total[-1] + sum(graph.weights[name].nbytes for name in new))
    return [total[cut] + peak[cut] for cut in cuts]


def _size(graph: ModelGraph, names: Iterable[str]) -> int:
    return sum(graph.types.specs[name].nbytes for name in names if name in graph.types.specs)


def _weights(graph: ModelGraph, names: Iterable[str]) -> Iterator[str]:
    """The weights behind tensors that do not run as steps: themselves, or nodes on constants alone."""
    for name in names:
        if name in graph.weights:
            yield name
        elif name in graph.topology.views:
            yield from _weights(graph, uses(graph.topology.views[name]))
