"""What cutting costs: head and tail against the whole model, on one thread, at every useful cut.

Each of the three runs again and again, as on a node of its own, which never runs the others: alternating, they would
throw each other's weights out of the caches. A round is a burst of the whole, of the head, of the tail, and of the
whole again, each one's median run; the ratio is the median over rounds, so that what else the machine does falls on
both sides. The worst cut is measured again for longer before it is called the worst.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _report import Figure, parser, report

from splitbus_demo import efficientnet
from splitbus_gateway.graph import ModelGraph, extract, load_graph, open_slice, random_feed, useful_cuts, verify
from splitbus_runtime.engine import Array, Session, open_session

Feed = Mapping[str, Array]
SECONDS_A_CUT = 0.5
AGAIN = 8  # times as long, for the worst cuts
MIN_ROUNDS = 7
BURST_SECONDS = 5e-3
MIN_BURST = 3


@dataclass(frozen=True)
class Tax:
    """Milliseconds of the whole and of head and tail together at one cut, and the ratio of the two within rounds."""

    index: int
    whole: float
    parts: float
    ratio: float


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
    taxes = {cut.index: _tax(graph, cut.index, whole, feed, seconds) for cut in cuts.cuts}
    confirmed: set[int] = set()
    while (worst := max(taxes.values(), key=lambda tax: tax.ratio)).index not in confirmed:
        confirmed.add(worst.index)
        taxes[worst.index] = _tax(graph, worst.index, whole, feed, AGAIN * seconds)
    median = float(np.median([tax.ratio for tax in taxes.values()]))
    checks = verify(graph, cuts=[cut.index for cut in cuts.cuts], threads=1)
    furthest = max(checks, key=lambda check: check.max_rel)
    at = f"cut {worst.index}: {worst.parts:.3f} for {worst.whole:.3f} ms; median of {len(taxes)} cuts {median:.3f}"
    absolute = f"cut {furthest.index}, {furthest.max_abs:.2g} absolute"
    return [
        Figure(f"slicing.tax_ratio.{name}", worst.ratio, "ratio", at),
        Figure(f"slicing.worst_difference.{name}", furthest.max_rel, "relative", absolute),
    ]


def _tax(graph: ModelGraph, index: int, whole: Session, feed: Feed, seconds: float) -> Tax:
    head = open_slice(extract(graph, 0, index), threads=1)
    tail = open_slice(extract(graph, index, graph.steps), threads=1)
    head_feed = {info.name: feed[info.name] for info in head.inputs}
    given = dict(zip([info.name for info in head.outputs], head.run(head_feed), strict=True))
    tail_feed = {info.name: given[info.name] for info in tail.inputs}

    def at_once() -> None:
        whole.run(feed)

    order = (at_once, lambda: head.run(head_feed), lambda: tail.run(tail_feed), at_once)
    rounds: list[list[float]] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(rounds) < MIN_ROUNDS:
        rounds.append([_burst(run) for run in order])
    first, heads, tails, last = np.array(rounds[1:]).T * 1000
    ratio = float(np.median(2 * (heads + tails) / (first + last)))
    return Tax(index, float(np.median([first, last])), float(np.median(heads + tails)), ratio)


def _burst(run: Callable[[], object]) -> float:
    """The median of as many runs as fit into a burst; the first does not count."""
    run()
    times: list[float] = []
    while sum(times) < BURST_SECONDS or len(times) < MIN_BURST:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
