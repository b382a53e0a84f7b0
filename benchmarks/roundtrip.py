"""The whole client and worker path over a real broker, beside in-process head + tail, bare TCP and bare paho.

    .venv/bin/python benchmarks/roundtrip.py [--models DIR] [--json FILE] [--rounds N]

Loopback, one thread of onnxruntime in each process, raw codec, the same bytes in each. The ways take turns, so that
whatever else the machine does meets all of them. `overhead_ms` is the median of the bus less that of in-process, with a
model that does next to nothing, so that what is left is the way itself. `paho_ms` is the same for paho with nothing of
ours around it and no tail behind it; `over_paho` is the ratio of the two. `over_tcp` is the ratio of bus to TCP with
inference: EfficientNet-Lite0 at the cut of 125,440 bytes (efficientnet_lite0.onnx in --models, else as the demo builds
it).
"""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _paho_echo import paho_echo
from _report import Figure, parser, report
from onnx import TensorProto, helper

from splitbus_demo import efficientnet
from splitbus_demo.broker import Broker, start_broker
from splitbus_device import Answer, InferenceSession
from splitbus_gateway.registry import Registry
from splitbus_gateway.signing import Signer
from splitbus_gateway.slicing import SliceBook
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.shelf import Shelf
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Message, ModelCard, NodeWork, Plan, PlanCut, PlanStage, SliceState
from splitbus_schemas.topics import MODEL, PLAN, SLICES, WORK
from splitbus_worker.settings import WorkerConfig

SIZES = {"16kB": 16_000, "125kB": 125_440, "1MB": 1_000_000, "4MB": 4_000_000}
SITE, DEVICE, WORKER = "bench", "camera1", "edge1"
REAL_MODEL = "efficientnet_lite0.onnx"
REAL_BYTES = 125_440
IN_FLIGHT = 4
LARGE = 500_000
MIN_ROUNDS = 20
WARM_UPS = 20


@dataclass
class Case:
    """A model cut in two: what goes in, and the three ways to run it."""

    size: str
    model: Path
    cut: int
    kind: str
    """What is measured: the wire alone, or the wire with inference."""


@dataclass
class Way:
    """One way to run a frame, and what it took."""

    name: str
    run: Callable[[], object]
    times: list[float]
    cpu: list[float]
    pids: tuple[int, ...] = ()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=150)
    chosen = options.parse_args()
    figures: list[Figure] = []
    for size, count in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            rounds = max(MIN_ROUNDS, chosen.rounds // (4 if count > LARGE else 1))
            figures += _measure(way_alone(size, Path(folder)), Path(folder), rounds)
    with tempfile.TemporaryDirectory() as folder:
        figures += _measure(with_inference(chosen.models, Path(folder)), Path(folder), chosen.rounds)
    report("Round trip of a frame: head, wire, tail, wire", figures, chosen.json)


def _measure(case: Case, folder: Path, rounds: int) -> list[Figure]:
    registry = Registry(folder / "gateway", samples=1)
    card = registry.add("bench", case.model)
    book = SliceBook(registry)
    head_id, tail_id = slice_of(book, card, 0, case.cut), slice_of(book, card, case.cut, card.nodes)
    shelf = Shelf(registry.store, never, threads=1)
    head, tail = shelf.open(head_id), shelf.open(tail_id)
    feeds = {spec.name: np.ones([size or 1 for size in spec.shape], spec.dtype) for spec in head.manifest.inputs}
    wire = head.manifest.outputs[0].name

    def in_process() -> object:
        return tail.session.run({wire: head.session.run(feeds)[0]})

    with (
        start_broker() as broker,
        _tcp_tail(folder / "gateway", tail_id, wire) as (ask, tcp_pid),
        paho_echo(broker) as (ask_paho, paho_pid),
        _worker(broker, folder / "gateway" / "blobs") as worker,
        InferenceSession(case.model, broker=f"mqtt://{broker.host}:{broker.port}", device=DEVICE, site=SITE,
                         deadline=20.0, window=IN_FLIGHT, store=folder / "gateway" / "blobs",
                         sess_options=one_thread()) as session,
    ):  # fmt: skip
        play_gateway(broker, card, case.cut, head_id, tail_id, session)
        ways = [
            Way("inprocess", in_process, [], []),
            Way("tcp", lambda: ask(head.session.run(feeds)[0]), [], [], (tcp_pid,)),
            Way("paho", lambda: ask_paho(head.session.run(feeds)[0]), [], [], (paho_pid,)),
            Way("bus", lambda: session.run(None, feeds), [], [], (worker.pid,)),
        ]
        _take_turns(ways, rounds, session)
        rate = _in_flight(session, feeds, rounds)
    return _figures(case, ways, rate)


def _take_turns(ways: list[Way], rounds: int, session: InferenceSession) -> None:
    for turn in range(WARM_UPS + rounds):
        for way in ways:
            cpu, started = _cpu(way.pids), time.perf_counter()
            way.run()
            took = time.perf_counter() - started
            if turn >= WARM_UPS:
                way.times.append(took)
                way.cpu.append(_cpu(way.pids) - cpu)
            if way.name == "bus" and (session.last_answer is None or session.last_answer.is_local):
                raise SystemExit(f"a frame was answered locally: {session.last_answer}")


def _in_flight(session: InferenceSession, feeds: dict[str, Any], rounds: int) -> float:
    """Frames a second with four out at once."""
    answers: list[Answer] = []
    done = threading.Event()

    def tell(answer: Answer) -> None:
        answers.append(answer)
        if len(answers) == rounds:
            done.set()

    started = time.perf_counter()
    for _ in range(rounds):
        session.submit(feeds, tell, live=False)
    done.wait()
    return sum(not answer.is_local for answer in answers) / (time.perf_counter() - started)


def _figures(case: Case, ways: list[Way], rate: float) -> list[Figure]:
    p50 = {way.name: statistics.median(way.times) * 1e3 for way in ways}
    p99 = {way.name: statistics.quantiles(way.times, n=100)[98] * 1e3 for way in ways}
    cpu = {way.name: statistics.mean(way.cpu) * 1e3 for way in ways}
    detail = f"{case.model.name}: bus {p50['bus']:.2f}, TCP {p50['tcp']:.2f}, in-process {p50['inprocess']:.2f} ms"
    tails = f"TCP {p99['tcp']:.2f}, in-process {p99['inprocess']:.2f}"
    work = f"client + worker; TCP {cpu['tcp']:.2f}, in-process {cpu['inprocess']:.2f}"
    overhead, over_tcp = p50["bus"] - p50["inprocess"], p50["bus"] / p50["tcp"]
    paho = p50["paho"] - p50["inprocess"]
    if case.kind == "inference":
        rows = [
            ("over_tcp", over_tcp, "ratio", detail),
            ("inference_overhead_ms", overhead, "ms", f"TCP {p50['tcp'] - p50['inprocess']:.2f}"),
            ("inference_p99_ms", p99["bus"], "ms", tails),
            ("inference_cpu_ms", cpu["bus"], "ms", work),
            ("inference_in_flight_per_s", rate, "1/s", f"{IN_FLIGHT} in flight"),
        ]
    else:
        rows = [
            ("overhead_ms", overhead, "ms", detail),
            ("paho_ms", paho, "ms", "bare paho with the head, less in-process"),
            ("over_paho", overhead / paho, "ratio", "our way's overhead and paho's own"),
            ("wire_over_tcp", over_tcp, "ratio", "of the medians, next to no inference"),
            ("p99_ms", p99["bus"], "ms", tails),
            ("cpu_ms", cpu["bus"], "ms", work),
            ("in_flight_per_s", rate, "1/s", f"{IN_FLIGHT} in flight"),
        ]
    return [Figure(f"roundtrip.{name}.{case.size}", value, unit, note) for name, value, unit, note in rows]


# The ways


def play_gateway(
    broker: Broker,
    card: ModelCard,
    cut: int,
    head: str,
    tail: str,
    session: InferenceSession,
    signer: Signer | None = None,
) -> None:
    """Publish what a gateway would, and wait until the plan is followed."""
    seal = (signer or Signer()).seal
    bus = MqttBus(broker.host, broker.port, client_id="bench-gateway")
    ready = threading.Event()

    def seen(payload: bytes) -> None:
        if payload and tail in SliceState.from_json(payload).ready:
            ready.set()

    bus.subscribe(SLICES.at(SITE, node=WORKER), lambda delivery: seen(delivery.payload))
    bus.wait_connected(5)

    def say(topic: str, message: Message) -> None:
        bus.publish(topic, seal(topic, message), qos=1, retain=True)

    say(MODEL.at(SITE, name=card.name), card)
    say(WORK.at(SITE, node=WORKER), NodeWork(slices=[tail]))
    if not ready.wait(20):
        raise SystemExit("the worker did not get its slice ready")
    plan = Plan(
        plan="bench",
        epoch=1,
        device=DEVICE,
        model=card.model,
        name=card.name,
        head=PlanStage(node=DEVICE, tier="device", slice=head),
        routes=[[PlanStage(node=WORKER, tier="edge", slice=tail)]],
        cuts=[PlanCut(index=cut, codec="raw")],
        predicted_ms=50.0,
        reason="benchmark",
    )
    say(PLAN.at(SITE, node=DEVICE, model=model_key(card.model)), plan)
    deadline = time.monotonic() + 20
    while session.plan != "bench":
        if time.monotonic() > deadline:
            raise SystemExit("the client did not follow the plan")
        time.sleep(0.05)
    bus.close()


@contextmanager
def _worker(broker: Broker, store: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = (
        "import sys; from splitbus_worker.service import run; from splitbus_worker.settings import WorkerConfig; "
        "sys.exit(run(WorkerConfig.model_validate_json(sys.argv[1])))"
    )
    address = {"url": f"mqtt://{broker.host}:{broker.port}"}
    settings = {"site": SITE, "node": WORKER, "broker": address, "state_dir": store, "threads": 1}
    config = WorkerConfig.model_validate(settings)
    command = [sys.executable, "-c", code, config.model_dump_json()]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def _tcp_tail(state_dir: Path, tail_id: str, wire: str) -> Iterator[tuple[Callable[[Any], bytes], int]]:
    """A process that runs the tail on whatever float32 tensor comes over a TCP connection."""
    ours, theirs = mp.Pipe()
    process = mp.get_context("spawn").Process(target=_serve_tail, args=(state_dir, tail_id, wire, theirs), daemon=True)
    process.start()
    port = ours.recv()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask(array: Any) -> bytes:
            connection.sendall(struct.pack("<I", array.nbytes))
            connection.sendall(array.data)
            return _receive(connection)

        yield ask, process.pid or 0
    process.join(5)


def _serve_tail(state_dir: Path, tail_id: str, wire: str, pipe: Connection) -> None:
    shelf = Shelf(Registry(state_dir, samples=1).store, never, threads=1)
    tail = shelf.open(tail_id)
    shape = [size or 1 for size in tail.manifest.inputs[0].shape]
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname()[1])
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := _receive(connection):
            answer = tail.session.run({wire: np.frombuffer(data, np.float32).reshape(shape)})[0]
            connection.sendall(struct.pack("<I", answer.nbytes) + answer.tobytes())


def _receive(connection: socket.socket) -> bytes:
    head = connection.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return b""
    (size,) = struct.unpack("<I", head)
    data = bytearray(size)
    view = memoryview(data)
    while view:
        view = view[connection.recv_into(view) :]
    return bytes(data)


# Models and clocks


def way_alone(size: str, folder: Path) -> Case:
    """A model that does next to nothing."""
    path = folder / f"identity_{size}.onnx"
    onnx.save(identity(SIZES[size] // 4), path)
    return Case(size, path, 1, "wire")


def with_inference(models: Path | None, folder: Path) -> Case:
    """EfficientNet-Lite0, cut where 125,440 bytes cross."""
    given = models / REAL_MODEL if models is not None else None
    path = given if given is not None and given.is_file() else efficientnet.build(folder / REAL_MODEL)
    registry = Registry(folder / "look", samples=1)
    registry.add("bench", path)
    return Case("125kB", path, next(c.index for c in registry.get("bench").cuts if c.bytes == REAL_BYTES), "inference")


def identity(elements: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Neg", ["x"], ["h"]), helper.make_node("ReduceMax", ["h"], ["y"], keepdims=1)]
    graph = helper.make_graph(
        nodes,
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, elements])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def slice_of(book: SliceBook, card: ModelCard, first: int, last: int) -> str:
    made = book.slice_for(card.model, first, last)
    if made is None:
        raise SystemExit(f"nothing to run between cuts {first} and {last}")
    return made[0]


def never(sha256: str) -> None:
    raise SystemExit(f"blob {sha256} should be in the store")


def one_thread() -> Any:
    import onnxruntime as ort  # noqa: PLC0415, TID251 - the caller's own options, as a camera program has them

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def _cpu(pids: tuple[int, ...]) -> float:
    """CPU seconds of this process and those."""
    total = time.process_time()
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


if __name__ == "__main__":
    main()
