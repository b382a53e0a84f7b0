"""Does a profile tell the truth: blocks against the whole, and predicted heads and tails against measured ones.

Each model is profiled as a node does it, on one thread, while the whole is timed in a session of its own after every
few blocks. Then head and tail are timed at every useful cut, each in rounds with the whole: what is compared is their
share of it, so that a machine that changes its speed in between falls on neither side.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _report import Figure, parser, report

from splitbus_demo import efficientnet
from splitbus_gateway.cut_times import ROUNDS, measure_cuts, run_ms
from splitbus_gateway.graph import load_graph
from splitbus_gateway.local_profile import LocalSlices
from splitbus_runtime.profiler import Stopwatch, Told, profile, sample
from splitbus_schemas.messages import NodeProfile, ProfileRequest

BLOCKS_A_WHOLE = 4
STOPWATCH = Stopwatch(threads=1)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=ROUNDS, help="how often each head and tail is timed")
    arguments = options.parse_args()
    figures: list[Figure] = []
    sums: list[float] = []
    errors: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in _models(arguments.models, Path(folder)):
            slices = LocalSlices(load_graph(path), threads=1)
            request = slices.request(ratio=1.0)
            began = time.perf_counter()
            found, whole_ms = _profile(slices, request)
            seconds = time.perf_counter() - began
            measured = measure_cuts(slices, found, STOPWATCH, found.cuts[:-1], rounds=arguments.rounds)
            sums.append(abs(sum(found.block_ms) / whole_ms - 1))
            off = [error for times in measured for error in times.errors]
            errors += off
            figures += _figures(path.stem, found, whole_ms, off, seconds)
    if not sums:
        print(f"{arguments.models} has no .onnx files: give a folder that has some", file=sys.stderr)
        return 1
    figures += [
        Figure("profile.sum_error.median", float(np.median(sums)), "relative", "over the models; at most 0.05"),
        *_quantiles("profile.cut_error", errors, "over all heads and tails; at most 0.10 and 0.20"),
    ]
    report("Profiles", figures, arguments.json)
    return 0


def _models(folder: Path | None, scratch: Path) -> list[Path]:
    """The models in `folder`; without one, the demo's."""
    return sorted(folder.glob("*.onnx")) if folder else [efficientnet.build(scratch / "efficientnet_lite0.onnx")]


def _figures(name: str, found: NodeProfile, whole_ms: float, off: list[float], seconds: float) -> list[Figure]:
    blocks = len(found.block_ms)
    spread = float(np.median(np.divide(found.spread_ms, np.maximum(found.block_ms, 1e-6))))
    return [
        Figure(
            f"profile.sum_error.{name}",
            abs(sum(found.block_ms) / whole_ms - 1),
            "relative",
            f"{blocks} blocks {sum(found.block_ms):.3f} ms, whole {whole_ms:.3f} ms; "
            f"median interquartile range of a block {spread:.0%}",
        ),
        *_quantiles(f"profile.cut_error.{name}", off, f"heads and tails at {blocks - 1} cuts"),
        Figure(f"profile.seconds.{name}", seconds, "s", "to take the profile; at most 60"),
    ]


def _quantiles(name: str, errors: list[float], detail: str) -> list[Figure]:
    values = errors or [0.0]
    return [
        Figure(f"{name}.p50", float(np.median(values)), "relative", detail),
        Figure(f"{name}.p90", float(np.quantile(values, 0.9)), "relative", detail),
    ]


def _profile(slices: LocalSlices, request: ProfileRequest) -> tuple[NodeProfile, float]:
    """The profile, and what the whole took by itself meanwhile."""
    whole = slices.open(request.whole)
    feed = {spec.name: sample(spec) for spec in whole.manifest.inputs}
    times: list[float] = []

    def measure_whole(told: Told) -> None:
        if told.done % BLOCKS_A_WHOLE == 0 or told.done == told.total:
            times.append(run_ms(whole, feed, STOPWATCH))

    found = profile(request, slices, node="here", boot="here", stopwatch=STOPWATCH, progress=measure_whole)
    return found, float(np.median(times))


if __name__ == "__main__":
    sys.exit(main())
