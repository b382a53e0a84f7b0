"""The order of a graph's nodes, who needs which tensor, and which nodes are not worth a place in that order.

A step is a node that runs once, in one slice. A view is a node that every slice repeats that needs it: one that
depends on constants alone, or a DequantizeLinear with constant scale (so that a cut carries the 8-bit tensor).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from splitbus_schemas.errors import ModelError

_RANDOM = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
}  # fmt: skip

# Arithmetic on shapes: done as early as can be, it carries a few numbers over a cut instead of the tensor measured.
_SHAPE_SOURCES = {"Shape", "Size"}
_SHAPE_MATH = {
    "Gather", "Slice", "Squeeze", "Unsqueeze", "Concat", "Cast", "Add", "Sub", "Mul", "Div", "Mod", "Min", "Max",
    "Floor", "Ceil", "Identity", "ReduceProd", "Where", "Equal", "Neg", "Abs", "Reshape",
}  # fmt: skip


@dataclass(frozen=True)
class Topology:
    """`steps` in the order they run, what each `reads` of tensors that may cross a cut, where these begin and end.

    `order` has the views too. A tensor produced by step i has `produced` i + 1 (a graph input 0) and `last_use` j + 1
    where step j is its last user: it crosses cut k when produced <= k < last_use.
    """

    steps: tuple[NodeProto, ...]
    views: Mapping[str, NodeProto]
    order: tuple[NodeProto, ...]
    reads: tuple[tuple[str, ...], ...]
    produced: Mapping[str, int]
    last_use: Mapping[str, int]
    outputs: Mapping[str, int]


def arrange(graph: GraphProto) -> Topology:
    """Order the nodes that the graph's outputs need. Raises ModelError for a cycle or a tensor that nothing gives."""
    constants, inputs = _given(graph)
    _check_names(graph, constants.union(inputs))
    return _topology(graph, _sorted(_needed(graph), constants, inputs))


def rearrange(graph: GraphProto, topology: Topology, cuts: Sequence[Collection[int]]) -> Topology:
    """The same nodes in an order that has each of `cuts` (sets of steps, each within the next) at its beginning.

    What these leave open stays as it was: an order that has them all is not changed.
    """
    ranks: dict[str, int] = {}
    ranked: list[list[NodeProto]] = [[] for _ in range(len(cuts) + 1)]
    steps = iter(range(len(topology.steps)))
    for node in topology.order:
        if any(name in topology.views for name in node.output):
            rank = max((ranks.get(name, 0) for name in uses(node)), default=0)
        else:
            step = next(steps)
            rank = sum(step not in cut for cut in cuts)
        ranks.update((name, rank) for name in node.output)
        ranked[rank].append(node)
    return _topology(graph, tuple(node for nodes in ranked for node in nodes))


def _topology(graph: GraphProto, order: tuple[NodeProto, ...]) -> Topology:
    constants, inputs = _given(graph)
    outputs = [value.name for value in graph.output]
    views, roots = _views(order, constants, set(outputs))
    steps = tuple(node for node in order if not any(name in views for name in node.output))
    reads = tuple(tuple(dict.fromkeys(r for name in uses(n) for r in roots.get(name, (name,)))) for n in steps)
    produced = dict.fromkeys(inputs, 0)
    last_use: dict[str, int] = {}
    for number, (node, names) in enumerate(zip(steps, reads, strict=True), start=1):
        produced.update((name, number) for name in node.output if name)
        last_use.update((name, number) for name in names)
    ends = {name: len(steps) if name in views or name in constants else produced[name] for name in outputs}
    return Topology(steps, views, order, reads, produced, last_use, ends)


def _given(graph: GraphProto) -> tuple[set[str], list[str]]:
    """The names of the constants and of the inputs that are none."""
    constants = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    return constants, [value.name for value in graph.input if value.name not in constants]


def uses(node: NodeProto) -> tuple[str, ...]:
    """The tensors a node reads, those captured by its subgraphs too."""
    return tuple(dict.fromkeys((*filter(None, node.input), *_captures(node))))


def _captures(node: NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            wanted = [name for inner in graph.node for name in uses(inner)] + [value.name for value in graph.output]
            yield from (name for name in wanted if name not in own)


def _check_names(graph: GraphProto, given: set[str]) -> None:
    seen = set(given)
    for node in graph.node:
        for name in filter(None, node.output):
            if name in seen:
                raise ModelError(f"node {label(node)} gives tensor {name}, which something else gives too")
            seen.add(name)


def _needed(graph: GraphProto) -> list[NodeProto]:
    """The nodes that contribute to the outputs, in the file's order."""
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needed: set[int] = set()
    wanted = [value.name for value in graph.output]
    while wanted:
        index = producer.get(wanted.pop())
        if index is not None and index not in needed:
            needed.add(index)
            wanted.extend(uses(graph.node[index]))
    return [graph.node[index] for index in sorted(needed)]


def _sorted(nodes: list[NodeProto], constants: set[str], inputs: Iterable[str]) -> tuple[NodeProto, ...]:
    """A topological order that keeps the file's where it can, but does arithmetic on shapes as soon as it can."""
    given = constants.union(inputs)
    early = _shape_math(nodes, constants)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waiting = [len({producer[name] for name in uses(node) if name in producer}) for node in nodes]
    users: list[set[int]] = [set() for _ in nodes]
    for index, node in enumerate(nodes):
        for name in uses(node):
            if name in producer:
                users[producer[name]].add(index)
            elif name not in given:
                raise ModelError(f"node {label(node)} reads tensor {name}, which no node or input gives: export again")
    ready = [(index not in early, index) for index, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    done: list[NodeProto] = []
    while ready:
        _, index = heapq.heappop(ready)
        done.append(nodes[index])
        for user in users[index]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (user not in early, user))
    if len(done) < len(nodes):
        raise ModelError(f"node {label(nodes[next(i for i, n in enumerate(waiting) if n)])} depends on its own output")
    return tuple(done)


def _shape_math(nodes: list[NodeProto], constants: set[str]) -> set[int]:
    """Which nodes compute with shapes alone; a file out of order merely has fewer of them found."""
    fixed = set(constants)
    names: set[str] = set()
    found: set[int] = set()
    for index, node in enumerate(nodes):
        wanted = set(uses(node))
        if node.op_type in _SHAPE_SOURCES or (node.op_type in _SHAPE_MATH and wanted <= names | fixed):
            found.add(index)
            names.update(node.output)
        elif wanted <= fixed:
            fixed.update(node.output)
    return found


def _views(
    order: Iterable[NodeProto], constants: set[str], outputs: set[str]
) -> tuple[dict[str, NodeProto], dict[str, tuple[str, ...]]]:
    """The views by the tensors they give, and for each of these and each constant the tensors behind it."""
    roots: dict[str, tuple[str, ...]] = dict.fromkeys(constants, ())
    views: dict[str, NodeProto] = {}
    for node in order:
        names = uses(node)
        fixed = [roots.get(name) == () for name in names]
        if all(fixed) and not _is_random(node):
            behind: tuple[str, ...] = ()
        elif node.op_type == "DequantizeLinear" and all(fixed[1:]) and not outputs.intersection(node.output):
            behind = roots.get(names[0], (names[0],))
        else:
            continue
        roots.update((name, behind) for name in node.output if name)
        views.update((name, node) for name in node.output if name)
    return views, roots


def _is_random(node: NodeProto) -> bool:
    graphs = (graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs))
    return node.op_type in _RANDOM or any(_is_random(inner) for graph in graphs for inner in graph.node)


def label(node: NodeProto) -> str:
    """How messages name a node."""
    return f"{node.name or node.output[0]} ({node.op_type})"
