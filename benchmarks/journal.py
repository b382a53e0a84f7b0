"""Durable frames: what writing a frame's state costs, as a share of the time that its head takes, by fsync policy.

    .venv/bin/python benchmarks/journal.py [--models DIR] [--folder DIR] [--seconds S] [--json FILE]

Each round runs the head once and takes a frame through a journal of every policy in turn: accepted with its inputs, the
head's output kept, the answer kept, marked as applied. Shares are medians over rounds of one run, on one thread; a head
is run again before each policy's write, as a camera would. `head` is the state written at the slice boundary, on a
thread that waits for the workers meanwhile; `input` is what acceptance costs, before the head. `raw` and `q8` are the
codecs at the cut. --folder says on which disk.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, get_args

import numpy as np
from _report import Figure, parser, report

from splitbus_demo import efficientnet
from splitbus_device.answer import Answer
from splitbus_device.durable import Durable, Keeper
from splitbus_device.journal_file import Fsync
from splitbus_gateway.graph import Cut, ModelGraph, extract, load_graph, open_slice, random_feed, useful_cuts
from splitbus_schemas.packet import pack_tensor

POLICIES: Final[tuple[Fsync, ...]] = get_args(Fsync)
PLAN: Final = bytes(3000)
"""A plan's JSON is as long."""
CUTS: Final = 5
SECONDS: Final = 3.0
MIN_ROUNDS: Final = 15

T = TypeVar("T")


def main() -> int:
    """Measure every model."""
    options = parser(__doc__)
    options.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the journals are made; the system's when absent"
    )
    options.add_argument("--seconds", type=float, default=SECONDS, help="time to spend on each cut and codec")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        models = arguments.models
        paths = (
            sorted(models.glob("*.onnx")) if models else [efficientnet.build(Path(folder) / "efficientnet_lite0.onnx")]
        )
        if not paths:
            print(f"{models} has no .onnx files: give a folder that has some", file=sys.stderr)
            return 1
        figures = [f for path in paths for f in measure(load_graph(path), Path(folder) / path.stem, arguments.seconds)]
    report("Journal", figures, arguments.json)
    return 0


def measure(graph: ModelGraph, folder: Path, seconds: float) -> Iterator[Figure]:
    """A few cuts, from the first useful one to the last."""
    cuts = useful_cuts(graph).cuts
    chosen = [cuts[round(i * (len(cuts) - 1) / (CUTS - 1))] for i in range(CUTS)] if len(cuts) > CUTS else cuts
    shares: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for cut in chosen:
        for codec in ("raw", "q8"):
            for name, share, detail in measure_cut(graph, cut, codec, folder / f"{cut.index}-{codec}", seconds):
                shares[name].append((share, detail))
    for name, found in shares.items():
        worst = max(found)
        middle = statistics.median(share for share, _ in found)
        yield Figure(
            f"journal.{name}.{graph.path.stem}",
            middle,
            "of head",
            f"{len(found)} cuts; worst {worst[0]:.1%}: {worst[1]}",
        )


def measure_cut(
    graph: ModelGraph, cut: Cut, codec: str, folder: Path, seconds: float
) -> Iterator[tuple[str, float, str]]:
    """Name, share of the head's time, and what it was."""
    head = open_slice(extract(graph, 0, cut.index, codec_out=codec), threads=1)
    feeds = {info.name: random_feed(graph.inputs)[info.name] for info in head.inputs}
    names = [info.name for info in head.outputs]
    answer = Answer([np.zeros((1, 1000), np.float32)], ("cam", "edge1"), "p1", 1, "cam/b/1", 10.0)
    took: defaultdict[tuple[Fsync, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        keepers = {
            policy: stack.enter_context(
                closing(Keeper(Durable(folder=folder / policy, fsync=policy), lambda _w, _r: None))
            )
            for policy in POLICIES
        }
        until, number, size = time.perf_counter() + seconds, 0, 0
        while time.perf_counter() < until or number < MIN_ROUNDS:
            number += 1
            for policy, keeper in keepers.items():
                key, note = f"frame {number}", took[policy, "run"].append
                wrote, ticket = timed(partial(keeper.accept, key, feeds, None))
                took[policy, "input"].append(wrote)
                ran, outputs = timed(partial(head.run, feeds))
                note(ran)
                sent = [pack_tensor(name, output, "raw") for name, output in zip(names, outputs, strict=True)]
                size = sum(len(tensor.data) for tensor in sent)
                took[policy, "head"].append(timed(partial(ticket.keep_head, PLAN, sent, {}))[0])
                took[policy, "answer"].append(timed(partial(ticket.answered, answer, None))[0])
                took[policy, "mark"].append(timed(partial(keeper.applied, key))[0])
    for (policy, what), times in took.items():
        if what != "run":
            ran = statistics.median(took[policy, "run"])
            wrote = statistics.median(times)
            detail = f"cut {cut.index}, {size} B crossing, {wrote * 1e6:.0f} us beside a head of {ran * 1e3:.2f} ms"
            yield f"{what}_share.{codec}.{policy}", wrote / ran, detail


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what it gave."""
    began = time.perf_counter()
    given = run()
    return time.perf_counter() - began, given


if __name__ == "__main__":
    sys.exit(main())
