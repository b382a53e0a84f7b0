"""What deciding costs: a plan for a long chain, the minimum cut of a large graph, the search for a model's best cuts.

The first is what runs at every change of a link, the second is the exact optimum over all cuts, the third runs once
when a model is loaded. Graphs and figures of nodes are made up, with a fixed seed; the models are real.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from _report import Figure, parser, report

from splitbus_demo import efficientnet
from splitbus_gateway.graph import Dag, Hop, Partition, Tensor, best_partition, legal_cuts, load_graph, useful_cuts
from splitbus_gateway.graph.nested import Measure, nested_cuts
from splitbus_gateway.graph.prefixes import best_cuts
from splitbus_gateway.planner import plan
from splitbus_gateway.problem import Codings, Limits, LinkFacts, NodeFacts, Problem
from splitbus_schemas.messages import Tier

CUTS, CODECS, NODES = 100, 8, 500
ROUNDS, FEW_ROUNDS = 200, 20
HOPS = {(0, 1): Hop(1.6e-4, 2.0), (1, 2): Hop(4e-4, 5.0), (0, 2): Hop(8e-4, 10.0)}  # 50, 20 and 10 Mbit/s


def main() -> int:
    arguments = parser(__doc__).parse_args()
    figures = [_chain(), *_graphs()]
    with tempfile.TemporaryDirectory() as folder:
        paths = _models(arguments.models, Path(folder))
        if not paths:
            print(f"{arguments.models} has no .onnx files: give a folder that has some", file=sys.stderr)
            return 1
        for path in paths:
            figures += _model(path)
    report("Planner", figures, arguments.json)
    return 0


def _models(folder: Path | None, scratch: Path) -> list[Path]:
    """The models in `folder`; without one, the demo's."""
    return sorted(folder.glob("*.onnx")) if folder else [efficientnet.build(scratch / "efficientnet_lite0.onnx")]


def _chain() -> Figure:
    problem = chain_problem()
    times = _times(lambda: plan(problem), ROUNDS)
    considered = plan(problem).considered
    detail = f"{considered} ways, 3 tiers; 99th percentile {np.percentile(times, 99):.2f}"
    return Figure(f"planner.plan_ms.{CUTS}_cuts_{CODECS}_codecs", float(np.median(times)), "ms", detail)


def chain_problem() -> Problem:
    """A chain with all its cuts and codecs allowed, so that nothing is left out of the search."""
    rng = np.random.default_rng(0)
    shape = (CUTS, CODECS)
    codings = Codings(
        cuts=tuple(range(CUTS + 1)),
        codecs=tuple(f"codec{number}" for number in range(CODECS)),
        coded_bytes=rng.uniform(1e3, 2e5, shape),
        encode_ms=rng.uniform(0.05, 1.0, shape),
        decode_ms=rng.uniform(0.05, 0.5, shape),
        agreement=np.full(shape, 0.995),
        lossless=np.broadcast_to(np.arange(CODECS) < 2, shape),
    )
    elapsed = np.concatenate([[0.0], rng.uniform(0.01, 0.1, CUTS).cumsum()])

    def node(name: str, tier: Tier, slower: float) -> NodeFacts:
        return NodeFacts(name, tier, elapsed * slower, codecs=frozenset(codings.codecs))

    return Problem(
        codings=codings,
        reference_ms=float(elapsed[-1]),
        answer_bytes=4000.0,
        device=node("camera", "device", 10.0),
        workers=(node("edge", "edge", 2.0), node("cloud", "cloud", 0.5)),
        links={
            ("camera", "edge"): LinkFacts(2.0, 20.0, 20.0),
            ("camera", "cloud"): LinkFacts(20.0, 5.0, 20.0),
            ("edge", "cloud"): LinkFacts(10.0, 50.0, 50.0),
        },
        limits=Limits(min_agreement=0.98),
    )


def _graphs() -> list[Figure]:
    """The optimum over all routes of three tiers, each a search of its own."""
    figures = []
    for shape, reach in (("deep", 4), ("wide", 60)):
        dag = random_graph(NODES, reach)
        times = _times(partial(_anew, dag), FEW_ROUNDS)
        found = best_partition(dag, HOPS)
        stages = " + ".join(str(size) for size in np.diff([0, *map(len, found.before), NODES]))
        detail = f"{stages} nodes on tiers {list(found.route)}, {found.ms:.1f} ms; slowest {max(times):.1f}"
        figures.append(Figure(f"planner.minimum_cut_ms.{NODES}_nodes.{shape}", float(np.median(times)), "ms", detail))
        measures = [Measure(work, dag.tensors) for work in zip(*dag.ms, strict=True)]
        times = _times(partial(nested_cuts, measures, worth=0.01), FEW_ROUNDS)
        detail = f"{len(nested_cuts(measures, worth=0.01))} cuts found"
        figures.append(Figure(f"planner.search_ms.{NODES}_nodes.{shape}", float(np.median(times)), "ms", detail))
    return figures


def _anew(dag: Dag) -> Partition:
    """With what a graph keeps between searches made again."""
    return best_partition(Dag(dag.ms, dag.tensors), HOPS)


def random_graph(nodes: int, reach: int) -> Dag:
    """Each node reads one to three of the `reach` before it; tensors shrink towards the end, as a network's do."""
    rng = random.Random(reach)
    readers: list[list[int]] = [[] for _ in range(nodes)]
    for node in range(1, nodes):
        for producer in {rng.randrange(max(0, node - reach), node) for _ in range(rng.randint(1, 3))}:
            readers[producer].append(node)
    work = [rng.uniform(0.001, 0.03) for _ in range(nodes)]
    ms = tuple((10 * each, 4 * each, 0.5 * each) for each in work)
    tensors = [Tensor(300e3, None, tuple(range(reach)))]
    for node in range(nodes):
        nbytes = rng.uniform(0.3, 1.0) * 200e3 * math.exp(-12 * node / nodes) / math.sqrt(reach)
        tensors.append(Tensor(nbytes, node, tuple(readers[node]), "inside" if readers[node] else "end"))
    return Dag(ms, tuple(tensors))


def _model(path: Path) -> list[Figure]:
    name = path.stem
    graph = load_graph(path)
    legal, useful = legal_cuts(graph), useful_cuts(graph).cuts
    found = best_cuts(graph.proto.graph, graph.topology, graph.types)
    times = _times(lambda: best_cuts(graph.proto.graph, graph.topology, graph.types), FEW_ROUNDS)
    load = _times(lambda: load_graph(path), 3)
    least = f"the least carries {min(cut.nbytes for cut in useful)} bytes" if useful else "none"
    return [
        Figure(f"planner.cuts_legal.{name}", len(legal), "cuts", f"{graph.steps} steps"),
        Figure(f"planner.cuts_useful.{name}", len(useful), "cuts", least),
        Figure(f"planner.cuts_found.{name}", len(found), "cuts", "nested, by the search over all cuts"),
        Figure(
            f"planner.search_ms.{name}", float(np.median(times)), "ms", f"of {np.median(load):.0f} ms to load the model"
        ),
    ]


def _times(run: Callable[[], object], rounds: int) -> list[float]:
    """Milliseconds of each round, after one that is not counted."""
    run()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        found.append((time.perf_counter() - started) * 1e3)
    return found


if __name__ == "__main__":
    sys.exit(main())
