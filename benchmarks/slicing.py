"""What cutting costs: head and tail against the whole model, on one thread, at every useful cut.

Rounds of whole, head + tail, head + tail, whole are interleaved, and each side's fastest tenth is compared, so that
what else the machine does falls on both or on neither.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _report import Figure, parser, report

from splitbus_demo import efficientnet
from splitbus_gateway.graph import Cut, ModelGraph, extract, load_graph, open_slice, random_feed, useful_cuts, verify
from splitbus_runtime.engine import Array, Session, open_session

Feed = Mapping[str, Array]
SECONDS_A_CUT = 1.0
MIN_ROUNDS = 40
LOW = 0.1  # the quantile that stands for a side's undisturbed time


@dataclass(frozen=True)
class Tax:
    """Milliseconds of the whole, and of head and tail together, at one cut."""

    index: int
    whole: float
    parts: float

    @property
    def ratio(self) -> float:
        return self.parts / self.whole


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=SECONDS_A_CUT, help="time to spend on each cut")
    arguments = options.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = _models(arguments.models, Path(folder))
        if not paths:
            print(f"{arguments.models} has no .onnx files: give a folder that has some", file=sys.stderr)
            return 1
        for path in paths:
            figures += _measure(load_graph(path), arguments.seconds)
    report("Slicing", figures, arguments.json)
    return 0


def _models(folder: Path | None, scratch: Path) -> list[Path]:
    """The models in `folder`; without one, the demo's."""
    return sorted(folder.glob("*.onnx")) if folder else [efficientnet.build(scratch / "efficientnet_lite0.onnx")]


def _measure(graph: ModelGraph, seconds: float) -> list[Figure]:
    name = graph.path.stem
    cuts = useful_cuts(graph)
    if cuts.reason:
        print(cuts.reason)
        return []
    feed = random_feed(graph.inputs)
    whole = open_session(graph.path, threads=1)
    taxes = [_tax(graph, cut, whole, feed, seconds) for cut in cuts.cuts]
    worst = max(taxes, key=lambda tax: tax.ratio)
    median = float(np.median([tax.ratio for tax in taxes]))
    checks = verify(graph, cuts=[cut.index for cut in cuts.cuts], threads=1)
    furthest = max(checks, key=lambda check: check.max_rel)
    at = f"cut {worst.index}: {worst.parts:.3f} for {worst.whole:.3f} ms; median of {len(taxes)} cuts {median:.3f}"
    absolute = f"cut {furthest.index}, {furthest.max_abs:.2g} absolute"
    return [
        Figure(f"slicing.tax_ratio.{name}", worst.ratio, "ratio", at),
        Figure(f"slicing.worst_difference.{name}", furthest.max_rel, "relative", absolute),
    ]


def _tax(graph: ModelGraph, cut: Cut, whole: Session, feed: Feed, seconds: float) -> Tax:
    head = open_slice(extract(graph, 0, cut.index), threads=1)
    tail = open_slice(extract(graph, cut.index, graph.steps), threads=1)
    head_feed = {info.name: feed[info.name] for info in head.inputs}
    head_names, tail_names = ([info.name for info in infos] for infos in (head.outputs, tail.inputs))

    def parts() -> None:
        given = dict(zip(head_names, head.run(head_feed), strict=True))
        tail.run({name: given[name] for name in tail_names})

    def all_at_once() -> None:
        whole.run(feed)

    both, alone = [], []
    _timed(parts), _timed(all_at_once)
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(alone) < MIN_ROUNDS:
        alone.append(_timed(all_at_once))
        both += [_timed(parts), _timed(parts)]
        alone.append(_timed(all_at_once))
    return Tax(cut.index, *(1000 * float(np.quantile(times, LOW)) for times in (alone, both)))


def _timed(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
