"""Our change logic along traces of a link, against hindsight, the best static split and rivals' policies.

    .venv/bin/python benchmarks/replay.py --models DIR [--trace FILE] [--json FILE] [--device 10] [--edge 2]

Built in are a step, 50 to 10 to 50 Mbit/s, and five drives with fades (made up, seeds 0 to 4). Models are profiled on
this machine, one thread; a device, an edge worker and a cloud worker so many times slower are supposed. Frames do not
run: their latency is the planner's price at each moment, whose truth `prediction.py` measures. What is replayed is the
gateway's own code, from samples of the link to the plan that the device follows.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from _report import Figure, parser, report
from _ways import NO_MODEL, models_of
from rich.progress import track
from rivals import Regression, rivals, time_layers

from splitbus_demo.inputs import InputSource
from splitbus_gateway.config import PlannerSettings
from splitbus_gateway.daemon import stream_settings
from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.graph import ModelGraph, load_graph
from splitbus_gateway.local_profile import profile_here
from splitbus_gateway.offline import Demands, GivenLink, GivenNode, ask, reblocked, scaled, write_world
from splitbus_gateway.policies import Policy
from splitbus_gateway.registry import Registry
from splitbus_gateway.replay import OURS, STATIC, Replay, replay
from splitbus_gateway.state import World
from splitbus_gateway.trace import Trace, drive, parse_trace, steps
from splitbus_runtime.engine import Array
from splitbus_schemas.messages import Tier

Slowness: TypeAlias = dict[Tier, float]

SAMPLES: Final = 16
SEEDS: Final = 5
FPS: Final = 10.0
LINKS: Final = (
    GivenLink("device", "edge1", 20.0, 20.0, 20.0),
    GivenLink("device", "cloud1", 20.0, 20.0, 40.0),
    GivenLink("edge1", "cloud1", 100.0, 100.0, 20.0),
)
"""The device's links are one access: rates alike, the cloud 20 ms further away."""


NAMES: Final[dict[Tier, str]] = {"device": "device", "edge": "edge1", "cloud": "cloud1"}


@dataclass(frozen=True)
class Subject:
    """A model, measured, and the nodes that are supposed to run it."""

    graph: ModelGraph
    facts: ModelFacts
    nodes: tuple[GivenNode, ...]


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--trace", type=Path, metavar="FILE", help="CSV: seconds, up Mbit/s, down Mbit/s, rtt ms")
    options.add_argument("--device", type=float, default=10.0, metavar="X", help="how many times slower the device is")
    options.add_argument("--edge", type=float, default=2.0, metavar="X", help="how many times slower the edge is")
    options.add_argument("--only", action="append", metavar="NAME", help="replay this model; again for more")
    arguments = options.parse_args()
    slowness: Slowness = {"device": arguments.device, "edge": arguments.edge, "cloud": 1.0}
    traces = _traces(arguments.trace)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        models = models_of(arguments.models, Path(folder))
        wanted = [name for name in models if name in (arguments.only or models)]
        if not wanted:
            print(NO_MODEL, file=sys.stderr)
            return 1
        layers = {name: time_layers(load_graph(path)) for name, path in track(models.items(), "timing layers")}
        registry = Registry(Path(folder) / "state", samples=SAMPLES)
        for name in track(wanted, "replaying"):
            regression = Regression(layer for other, known in layers.items() if other != name for layer in known)
            figures += _replay_all(_measure(registry, name, models[name], slowness), traces, regression, slowness)
    report("Replay", figures, arguments.json)
    return 0


def _traces(path: Path | None) -> dict[str, list[Trace]]:
    if path:
        with path.open(encoding="utf-8") as file:
            return {path.stem: [parse_trace(file, str(path))]}
    return {"step": [steps([50, 10, 50])], "drive": [drive(seed) for seed in range(SEEDS)]}


def _measure(registry: Registry, name: str, path: Path, slowness: Slowness) -> Subject:
    registry.add(name, path, _pictures(load_graph(path)))
    record = registry.get(name)
    graph, facts = registry.graph(record.model), record.facts()
    profile = reblocked(profile_here(graph, threads=1).profile, facts)
    nodes = tuple(GivenNode(NAMES[tier], tier, scaled(profile, factor)) for tier, factor in slowness.items())
    return Subject(graph, facts, nodes)


def _pictures(graph: ModelGraph) -> list[dict[str, Array]]:
    """The demo's pictures, as the model's inputs take them."""
    sources = {spec.name: InputSource(spec.sizes, spec.dtype) for spec in graph.inputs}
    return [{name: source.array(17 * index) for name, source in sources.items()} for index in range(SAMPLES)]


def _replay_all(
    subject: Subject, traces: dict[str, list[Trace]], regression: Regression, slowness: Slowness
) -> list[Figure]:
    factors = {NAMES[tier]: factor for tier, factor in slowness.items()}
    policies = rivals(subject.graph, subject.facts.codings.cuts, regression, factors)
    figures = [_foretold(subject, regression)]
    for name, group in traces.items():
        found = [_replay(subject, trace, policies) for trace in group]
        figures += _figures(f"replay.{subject.facts.name}.{name}", found)
    return figures


def _foretold(subject: Subject, regression: Regression) -> Figure:
    """How far the regression's whole model is from the measured one: what Neurosurgeon has to live with."""
    foretold = float(regression.elapsed(subject.graph, subject.facts.codings.cuts)[-1])
    whole = subject.nodes[-1].profile.whole_ms
    detail = f"Neurosurgeon's regression: {foretold:.2f} ms for {whole:.2f} ms measured"
    return Figure(f"replay.{subject.facts.name}.regression_ratio", foretold / whole, "ratio", detail)


def _replay(subject: Subject, trace: Trace, policies: Sequence[Policy]) -> Replay:
    settings = stream_settings(PlannerSettings())
    world = World()
    write_world(world, subject.nodes, LINKS)
    problem = ask(world, subject.facts, NAMES["device"], Demands(settings.limits))
    link = (NAMES["device"], NAMES["edge"])
    return replay(world, problem, subject.facts, link, trace, settings, fps=FPS, policies=policies)


def _figures(name: str, found: Sequence[Replay]) -> list[Figure]:
    figures = []
    for course in found[0].courses:
        mine = [one.course(course.name) for one in found]
        ratios = [float(c.ms.mean() / one.best_ms.mean()) for c, one in zip(mine, found, strict=True)]
        means, changes = [float(c.ms.mean()) for c in mine], [c.changes for c in mine]
        detail = f"{np.mean(means):.1f} ms a frame, {np.mean(changes):.1f} changes; {_spread(ratios)}"
        figures.append(Figure(f"{name}.{course.name}.of_hindsight", float(np.mean(ratios)), "ratio", detail))
    ours, static = ([one.course(which).ms.mean() for one in found] for which in (OURS, STATIC))
    shares = [float(a / b) for a, b in zip(ours, static, strict=True)]
    return [*figures, Figure(f"{name}.over_best_static", float(np.mean(shares)), "ratio", _spread(shares))]


def _spread(values: Sequence[float]) -> str:
    return f"{len(values)} traces, {min(values):.3f} to {max(values):.3f}" if len(values) > 1 else "one trace"


if __name__ == "__main__":
    sys.exit(main())
