"""What the protection costs while nothing fails: the whole client and worker path with it and without, in turns.

    .venv/bin/python benchmarks/protection.py [--rounds N] [--stretch N] [--models DIR] [--json FILE]

Loopback, a real broker, a worker in a process of its own, plans and slices signed, one frame at a time, raw codec. One
run sends short stretches of frames with all of the protection and with none of it, in turns, so that whatever else the
machine does meets both. `p50_ratio` and `p99_ratio` compare all frames of either kind, CPU is of client and worker.
`share_us` is one protection switched off alone, beside stretches with all: how much sooner the quickest quarter of the
frames is back, the median over all pairs of stretches, with its standard error, for many are smaller than what the
machine does meanwhile. What each is stands in the table of _protections.py, and no product has a switch for it. Checks
of a plan, which come once for each, are `plan_us`. Sealing is an option of its own: seal.py.
"""

from __future__ import annotations

import itertools
import multiprocessing as mp
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
from _protections import PROTECTIONS, of_client, of_worker
from _report import Figure, parser, report
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from packet import median_us
from roundtrip import (
    DEVICE,
    SITE,
    WORKER,
    Case,
    never,
    one_thread,
    play_gateway,
    slice_of,
    way_alone,
    with_inference,
)

from splitbus_demo.broker import start_broker
from splitbus_device import InferenceSession
from splitbus_device.epochs import EpochFloor
from splitbus_gateway.registry import Registry
from splitbus_gateway.signing import Signer
from splitbus_gateway.slicing import SliceBook
from splitbus_runtime.service import serve
from splitbus_runtime.shelf import Shelf
from splitbus_runtime.trust import Trust
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Plan, PlanCut, PlanStage
from splitbus_schemas.topics import PLAN
from splitbus_worker.service import WorkerService
from splitbus_worker.settings import WorkerConfig
from splitbus_worker.worker import Worker

ROUNDS: Final = 100
STRETCH: Final = 25
UNCOUNTED: Final = 5
"""Frames at the head of a stretch: what was switched shows in the interpreter's caches first."""

WISHED: Final = 1.03
"""Of p50, with all of the protection over without."""

ALL: Final = frozenset(PROTECTIONS)
NONE: Final[frozenset[str]] = frozenset()


@dataclass
class Stretch:
    """Frames in a row, seconds each; and CPU seconds of client and worker over all of them."""

    times: list[float]
    cpu_s: float

    @property
    def quick_us(self) -> float:
        """What a quarter of the frames are quicker than: the others meet more of what else the machine does."""
        return statistics.quantiles(self.times, n=4)[0] * 1e6

    @property
    def cpu_us(self) -> float:
        """Of one frame."""
        return self.cpu_s / (len(self.times) + UNCOUNTED) * 1e6


@dataclass
class Way:
    """A path that frames take, and how to have them go without some of the protection."""

    run: Callable[[], object]
    without: Callable[[Collection[str]], float]
    """Switch at both ends; gives the worker's CPU seconds so far."""
    names: frozenset[str]
    stretches: dict[frozenset[str], list[Stretch]] = field(default_factory=dict)

    def walk(self, off: frozenset[str], frames: int) -> Stretch:
        """A stretch without these."""
        began = self.without(off) + time.process_time()
        for _ in range(UNCOUNTED):
            self.run()
        times = []
        for _ in range(frames):
            started = time.perf_counter()
            self.run()
            times.append(time.perf_counter() - started)
        done = Stretch(times, self.without(off) + time.process_time() - began)
        self.stretches.setdefault(off, []).append(done)
        return done


def main() -> None:
    """Measure both paths, then every protection alone."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=ROUNDS, help="pairs of stretches for each comparison")
    options.add_argument("--stretch", type=int, default=STRETCH, help="frames of a stretch")
    chosen = options.parse_args()
    figures = measure(lambda folder: with_inference(chosen.models, folder), chosen.rounds, chosen.stretch)
    figures += measure(lambda folder: way_alone("16kB", folder), chosen.rounds, chosen.stretch)
    report("Protection while nothing fails", [*figures, *of_plans()], chosen.json)


def measure(case_in: Callable[[Path], Case], rounds: int, stretch: int) -> list[Figure]:
    """Both ratios of one path; of the way alone also every share, for its frames are the quickest."""
    with tempfile.TemporaryDirectory() as scratch:
        case = case_in(Path(scratch))
        label = f"{case.kind}.{case.size}"
        with whole_path(case, Path(scratch)) as path:
            pairs = take_turns(path, ALL, rounds, stretch)
            figures = ratios(label, path, pairs)
            if case.kind == "wire":
                for name in sorted(PROTECTIONS):
                    figures.append(share(label, name, take_turns(path, frozenset({name}), rounds, stretch)))
    return figures


def take_turns(path: Way, off: frozenset[str], rounds: int, frames: int) -> list[tuple[Stretch, Stretch]]:
    """Pairs of stretches, with all and without these, the order of each pair by lot."""
    lots, pairs = random.Random(1), []
    for _ in range(rounds):
        order = [NONE, off] if lots.random() < 0.5 else [off, NONE]
        walked = {which: path.walk(which, frames) for which in order}
        pairs.append((walked[NONE], walked[off]))
    path.without(NONE)
    return pairs


def ratios(label: str, path: Way, pairs: Sequence[tuple[Stretch, Stretch]]) -> list[Figure]:
    """With all of the protection over without any."""
    frames = [[seconds * 1e3 for pair in pairs for seconds in pair[side].times] for side in (0, 1)]
    p50 = [statistics.median(times) for times in frames]
    p99 = [statistics.quantiles(times, n=100)[98] for times in frames]
    cpu = [statistics.mean(pair[side].cpu_us for pair in pairs) / 1e3 for side in (0, 1)]
    more, error = difference([guarded.quick_us - bare.quick_us for guarded, bare in pairs])
    missing = ", ".join(sorted(ALL - path.names)) or "nothing"
    return [
        Figure(f"protection.{name}.{label}", have[0] / have[1], "ratio", f"{have[0]:.3f} over {have[1]:.3f} ms{note}")
        for name, have, note in (
            ("p50_ratio", p50, f", {len(frames[0])} frames each; at most {WISHED} is wished; not switched: {missing}"),
            ("p99_ratio", p99, ""),
            ("cpu_ratio", cpu, " of CPU a frame, client and worker"),
        )
    ] + [Figure(f"protection.total_us.{label}", more, "us", f"+- {error:.1f}; of a quarter of the frames")]


def share(label: str, name: str, pairs: Sequence[tuple[Stretch, Stretch]]) -> Figure:
    """What one protection takes."""
    more, error = difference([guarded.quick_us - bare.quick_us for guarded, bare in pairs])
    cpu, _ = difference([guarded.cpu_us - bare.cpu_us for guarded, bare in pairs])
    return Figure(
        f"protection.share_us.{label}.{name}", more, "us", f"+- {error:.1f}, CPU {cpu:.1f}; {PROTECTIONS[name]}"
    )


def difference(found: Sequence[float]) -> tuple[float, float]:
    """The median of differences, and its standard error as the quartiles tell it."""
    low, middle, high = statistics.quantiles(found, n=4)
    return middle, 1.25 * (high - low) / 1.35 / len(found) ** 0.5


# The path


@contextmanager
def whole_path(case: Case, folder: Path) -> Iterator[Way]:
    """Broker, worker and a session that follows a signed plan."""
    signer = Signer(Ed25519PrivateKey.generate())
    registry = Registry(folder / "gateway", samples=1)
    card, book = registry.add("bench", case.model), SliceBook(registry, signer=signer)
    head, tail = slice_of(book, card, 0, case.cut), slice_of(book, card, case.cut, card.nodes)
    store = folder / "gateway" / "blobs"
    first = Shelf(registry.store, never, threads=1, trust=Trust([signer.public])).open(head)
    feeds = {spec.name: np.ones([size or 1 for size in spec.shape], spec.dtype) for spec in first.manifest.inputs}
    with start_broker() as broker:
        url = f"mqtt://{broker.host}:{broker.port}"
        with (
            worker_process(url, store, signer.public) as ask,
            InferenceSession(case.model, broker=url, device=DEVICE, site=SITE, deadline=20.0, store=store,
                             gateway_key=signer.public, sess_options=one_thread()) as session,
        ):  # fmt: skip
            play_gateway(broker, card, case.cut, head, tail, session, signer)
            switches = of_client(session)

            def run() -> None:
                session.run(None, feeds)
                if session.last_answer is None or session.last_answer.is_local:
                    raise SystemExit(f"a frame was answered locally: {session.last_answer}")

            def without(names: Collection[str]) -> float:
                cpu_s: float = ask(frozenset(names))
                switches.without(names)
                return cpu_s

            run()
            yield Way(run, without, switches.names | ask("names"))
            without(NONE)


@contextmanager
def worker_process(url: str, store: Path, public: str) -> Iterator[Callable[[Any], Any]]:
    """A worker whose protections a question switches; the answer is its CPU seconds, or their names."""
    settings = {"site": SITE, "node": WORKER, "broker": {"url": url}, "state_dir": store, "threads": 1}
    settings["max_messages_s"] = 100_000  # frames of 16 kB come back to back here, more than a thousand a second
    config = WorkerConfig.model_validate({**settings, "gateway_key": public})
    ours, theirs = mp.Pipe()
    process = mp.get_context("spawn").Process(target=run_worker, args=(config.model_dump_json(), theirs), daemon=True)
    process.start()

    def ask(question: Any) -> Any:
        ours.send(question)
        return ours.recv()

    ask("names")
    try:
        yield ask
    finally:
        ours.send(None)
        process.join(20)


def run_worker(config: str, questions: Connection) -> None:
    """A worker's process: the daemon, and a thread that switches."""
    worker = Worker(WorkerConfig.model_validate_json(config))
    worker.start()
    switches, stop = of_worker(worker), threading.Event()

    def obey() -> None:
        while (question := questions.recv()) is not None:
            if question == "names":
                questions.send(switches.names)
            else:
                switches.without(question)
                questions.send(time.process_time())
        stop.set()

    threading.Thread(target=obey, name="bench-switches", daemon=True).start()
    serve(WorkerService(worker), stop=stop)
    worker.stop()


# Once for each plan


def of_plans() -> list[Figure]:
    """What is checked of a plan before it is read, and that it is no older than the last one, on disk."""
    signer = Signer(Ed25519PrivateKey.generate())
    trust, topic = Trust([signer.public]), PLAN.at(SITE, node=DEVICE, model=model_key("0" * 64))
    payload = signer.seal(topic, _plan())
    body = trust.open(topic, payload)
    with tempfile.TemporaryDirectory() as folder:
        floor, epochs = EpochFloor(Path(folder) / "epochs.json"), itertools.count(1)
        took = {
            "signature": median_us(lambda: trust.open(topic, payload)),
            "epoch": median_us(lambda: floor.lift("0" * 64, next(epochs))),
            "read": median_us(lambda: Plan.from_json(body)),
        }
    detail = f"signature {took['signature']:.0f}, epoch kept on disk {took['epoch']:.0f}; reading it {took['read']:.0f}"
    return [Figure("protection.plan_us", took["signature"] + took["epoch"], "us", f"once for each plan: {detail}")]


def _plan() -> Plan:
    stage = PlanStage(node=WORKER, tier="edge", slice="1" * 64)
    return Plan(
        plan="bench", epoch=1, device=DEVICE, model="0" * 64, name="bench",
        head=PlanStage(node=DEVICE, tier="device", slice="2" * 64), routes=[[stage]],
        cuts=[PlanCut(index=1, codec="raw")], predicted_ms=50.0, reason="benchmark",
    )  # fmt: skip


if __name__ == "__main__":
    main()
