"""Where a graph can be cut, what crosses there, and which of those places a planner should look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from splitbus_gateway.graph.model import ModelGraph
from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_gateway.graph.topology import label
from splitbus_gateway.graph.work import is_light


@dataclass(frozen=True)
class Cut:
    """The place with `index` steps before it (0: all are after it, the graph's inputs cross).

    `tensors` cross it. `finished` are the model's outputs made before it; one that no later step reads does not
    cross. `after` names the node just before the cut. `reason` says why the cut is not legal, "" if it is.
    """

    index: int
    tensors: tuple[TensorSpec, ...]
    finished: tuple[str, ...]
    after: str
    reason: str

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def legal(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class UsefulCuts:
    """The cuts worth considering, without the first and the last; `reason` says why there are none."""

    cuts: tuple[Cut, ...]
    reason: str


def all_cuts(graph: ModelGraph) -> tuple[Cut, ...]:
    """Every place between two steps, and both ends; those that are not legal say why."""
    return tuple(cut_at(graph, index) for index in range(graph.steps + 1))


def legal_cuts(graph: ModelGraph) -> tuple[Cut, ...]:
    return tuple(cut for cut in all_cuts(graph) if cut.legal)


def cut_at(graph: ModelGraph, index: int) -> Cut:
    """The cut with `index` steps before it. Raises IndexError beyond the graph's steps."""
    if not 0 <= index <= graph.steps:
        raise IndexError(f"{graph.path} has cuts 0 to {graph.steps}, not {index}")
    topology = graph.topology
    names = [name for name, end in topology.last_use.items() if topology.produced[name] <= index < end]
    names.sort(key=lambda name: (topology.produced[name], name))
    tensors = tuple(graph.types.specs[name] for name in names if name in graph.types.specs)
    finished = tuple(name for name in graph.outputs if index and topology.outputs[name] <= index)
    after = label(topology.steps[index - 1]) if index else ""
    return Cut(index, tensors, finished, after, _objection(graph, index, names))


def useful_cuts(graph: ModelGraph, *, ratio: float = 1.0) -> UsefulCuts:
    """One cut of each run of cuts with only light work between them: the one with the fewest bytes, late if equal.

    Cuts with more than `ratio` times the bytes of the inputs are left out: for one frame's latency, sending the
    inputs themselves or staying local is always better; under a throughput objective it may not be.
    """
    if graph.steps < 2:
        return UsefulCuts((), f"{graph.path} has one node only")
    cuts = all_cuts(graph)
    legal = [cut for cut in cuts[1:-1] if cut.legal]
    if not legal:
        reasons = {cut.reason: cut for cut in cuts[1:-1]}
        return UsefulCuts((), f"no cut of {graph.path} is legal: {'; '.join(sorted(reasons))}")
    best = [cut for run in _runs(graph, cuts) if (cut := _best(run)) and 0 < cut.index < graph.steps]
    if not best:
        return UsefulCuts((), f"{graph.path} has only light work before or after every cut")
    limit = ratio * cuts[0].nbytes
    kept = tuple(cut for cut in best if cut.nbytes <= limit)
    if kept:
        return UsefulCuts(kept, "")
    least = min(cut.nbytes for cut in best)
    return UsefulCuts((), f"every cut of {graph.path} carries more than its inputs: {least} bytes against {limit:.0f}")


def _objection(graph: ModelGraph, index: int, names: list[str]) -> str:
    """Why the cut is not legal; a model whose own inputs or outputs cannot travel has no legal cut at all."""
    odd = graph.types.odd
    ends = (value.name for value in (*graph.proto.graph.input, *graph.proto.graph.output))
    for name in (*names, *ends):
        if name in odd:
            return f"{name} {odd[name]}"
    return "nothing crosses it" if not names and 0 < index < graph.steps else ""


def _runs(graph: ModelGraph, cuts: tuple[Cut, ...]) -> Iterator[list[Cut]]:
    run = [cuts[0]]
    for cut, step in zip(cuts[1:], graph.topology.steps, strict=True):
        if not is_light(step):
            yield run
            run = []
        run.append(cut)
    yield run


def _best(run: list[Cut]) -> Cut | None:
    legal = [cut for cut in run if cut.legal]
    # An equal cut later in the run leaves fused neighbours together; but the inputs as they are beat inputs reworked.
    return min(legal, key=lambda cut: (cut.nbytes, cut.index > 0, -cut.index), default=None)
