from __future__ import annotations

import random

import pytest
from tests import models

from splitbus_gateway.graph.topology import Topology, arrange, rearrange, uses

NAMES = ["branches", "hidden_cut", "inputs_outputs", "shape_subgraph", "qdq", "transformer", "loop_capture", "opset13"]


def behind(topology: Topology, steps: set[int]) -> set[int]:
    """The steps with all that they need."""
    found = set(steps)
    for step in sorted(steps, reverse=True):
        made = {topology.produced[name] - 1 for name in topology.reads[step] if topology.produced[name]}
        found |= behind(topology, made) if not made <= found else set()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_any_nested_cuts_become_beginnings(name: str) -> None:
    graph = models.CORPUS[name]().graph
    topology = arrange(graph)
    rng = random.Random(name)
    for _ in range(20):
        cuts: list[set[int]] = []
        for _ in range(rng.randint(1, 4)):
            more = behind(topology, {rng.randrange(len(topology.steps))})
            cuts.append(more | (cuts[-1] if cuts else set()))
        found = rearrange(graph, topology, [frozenset(cut) for cut in cuts])
        outputs = [step.output[0] for step in found.steps]
        for cut in cuts:
            assert set(outputs[: len(cut)]) == {topology.steps[step].output[0] for step in cut}
        check_order(found)


def check_order(topology: Topology) -> None:
    made: set[str] = set()
    own = {name for node in topology.order for name in node.output}
    for node in topology.order:
        assert made.issuperset(own.intersection(uses(node)))
        made.update(node.output)


@pytest.mark.parametrize("name", models.CORPUS)
def test_without_cuts_nothing_changes(name: str) -> None:
    graph = models.CORPUS[name]().graph
    topology = arrange(graph)
    beginnings = [frozenset(range(size)) for size in range(1, len(topology.steps))]
    for cuts in ([], beginnings):
        assert rearrange(graph, topology, cuts).steps == topology.steps
