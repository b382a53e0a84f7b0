"""Workers on a real broker: blobs fetched, frames run and passed on, wills published, daemons started and stopped."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.brokers import Broker, BrokerFactory
from tests.worker.blob_server import BlobServer
from tests.worker.rig import Camera, Observer, arrays, ramp, wait_for
from tests.worker.slices import SmallSlice, add_one_slice, scale_slice, sum_slice

from splitbus_runtime import service as systemd
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.settings import BrokerSettings
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.packet_types import BlobPiece, Probe, Result
from splitbus_worker import Worker, WorkerConfig, service

pytestmark = pytest.mark.broker

_numbers = itertools.count(1)


class Site:
    """A site of its own on a broker, and everything on it that must be closed."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.name = f"site{next(_numbers)}-{os.getpid()}"
        self.broker, self.folder = broker, folder
        self._buses: list[MqttBus] = []
        self._workers: list[Worker] = []

    def bus(self, **options: Any) -> MqttBus:
        bus = MqttBus(self.broker.host, self.broker.port, client_id=f"{self.name}-{len(self._buses)}", **options)
        self._buses.append(bus)
        bus.wait_connected(10)
        return bus

    def config(self, node: str = "w1", **settings: Any) -> WorkerConfig:
        fixed = {"site": self.name, "node": node, "threads": 1, "state_dir": self.folder / node}
        return WorkerConfig.model_validate({"broker": BrokerSettings(url=self.broker.url)} | fixed | settings)

    def worker(self, *slices: SmallSlice, node: str = "w1") -> Worker:
        worker = Worker(self.config(node))
        self._workers.append(worker)
        for piece in slices:
            piece.put(worker.agent.store)
            worker.agent.shelf.load(piece.id)
        worker.start()
        wait_for(lambda: worker.ready, "the worker's start")
        return worker

    def camera(self) -> Camera:
        return Camera(self.bus(), site=self.name)

    def observer(self, node: str = "w1") -> Observer:
        return Observer(self.bus(), site=self.name, node=node)

    def blobs(self, *slices: SmallSlice) -> BlobServer:
        return BlobServer(self.bus(), {k: v for piece in slices for k, v in piece.blobs.items()}, site=self.name)

    def close(self) -> None:
        for worker in self._workers:
            if not worker.agent.stopping:
                worker.stop()
        for bus in self._buses:
            bus.close()


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[Site]:
    site = Site(broker, tmp_path)
    yield site
    site.close()


@pytest.mark.parametrize("size", [8, 31_250, 1_000_000])
@pytest.mark.parametrize("train", [False, True])
def test_runs_frames_of_any_size(site: Site, size: int, train: bool) -> None:
    piece = sum_slice(size)
    site.worker(piece)
    camera = site.camera()
    x = np.random.default_rng(1).random(size, dtype=np.float32)
    camera.send(camera.job([("w1", piece.id)], {"x": x}, budget_us=5_000_000), train=train)
    result = camera.result()
    np.testing.assert_allclose(arrays(result)["total"], piece.reference({"x": x})[0], rtol=1e-5)
    assert (result.spent[-1].train_bytes > 0) == (train and size > 2048) or size == 1_000_000


def test_two_workers_share_a_frame_and_fetch_what_they_lack(site: Site) -> None:
    first, second = scale_slice(final=False), add_one_slice()
    server = site.blobs(first, second)
    site.worker()
    site.worker(node="w2")
    for node, piece in (("w1", first), ("w2", second)):
        observer = site.observer(node)
        observer.order(piece.id)
        observer.wait_ready(piece)
    answer = (camera := site.camera()).ask(camera.job([("w1", first.id), ("w2", second.id)], {"x": ramp()}))
    np.testing.assert_array_equal(answer["z"], ramp() * 3 + 1)
    assert {sha for sha, _ in server.requests} == first.blobs.keys() | second.blobs.keys()


def test_a_corrupt_slice_fails_with_the_reason_and_can_be_repaired(site: Site) -> None:
    piece, good = scale_slice(), scale_slice(factor=2.0)
    server = site.blobs(piece, good)
    server.blobs[piece.weights[0]] = bytes(len(piece.blobs[piece.weights[0]]))
    site.worker()
    observer = site.observer()
    observer.order(piece.id, good.id)
    wait_for(lambda: observer.slices and good.id in observer.slices[-1].ready, "the good slice")
    assert "arrived with hash" in observer.slices[-1].failed[piece.id]
    server.blobs[piece.weights[0]] = piece.blobs[piece.weights[0]]
    observer.order(piece.id)
    wait_for(lambda: piece.id in observer.slices[-1].ready, "the repaired slice")
    assert observer.slices[-1].failed == {}


def test_a_slice_that_nobody_has_fails_with_the_gateways_words(site: Site) -> None:
    site.blobs()
    site.worker()
    observer = site.observer()
    observer.order("ab" * 32)
    wait_for(lambda: observer.slices and observer.slices[-1].failed, "the failure")
    assert "no such blob here" in observer.slices[-1].failed["ab" * 32]


def test_blobs_that_come_doubled_and_in_disorder(site: Site) -> None:
    piece = scale_slice(300_000)  # 1.2 MB: 19 pieces

    class Messy(BlobServer):
        def pieces(self, request: Any) -> list[BlobPiece]:
            first = super().pieces(request)
            again = super().pieces(request.model_copy(update={"offset": max(0, request.offset - 65536)}))
            return [*again, *first, *first]

    Messy(site.bus(), piece.blobs, site=site.name)
    worker = site.worker()
    worker.agent.shelf.load(piece.id)
    assert piece.id in worker.agent.shelf.ready


def test_probes_are_answered_and_measure_both_ways(site: Site) -> None:
    site.worker()
    camera = site.camera()
    camera.send(Probe(7, "cam", camera.reply_to, 9_000, bytes(20_000)), train=True)
    echo = camera.echo()
    assert (echo.id, echo.node) == (7, "w1")
    assert echo.train_bytes > 19_000
    assert echo.train_us > 0


def test_a_worker_that_stops_says_so_and_answers_no_more(site: Site) -> None:
    piece = scale_slice()
    worker = site.worker(piece)
    observer, camera = site.observer(), site.camera()
    wait_for(lambda: observer.status and observer.status[-1].state == "ready", "the ready status")
    worker.stop()
    wait_for(lambda: observer.status[-1].state == "stopping", "the goodbye")
    camera.send(camera.job([("w1", piece.id)], {"x": ramp()}))
    time.sleep(0.3)
    assert camera.replies.empty()
    assert observer.status[-1].state == "stopping", "the will of a worker that left in order is not published"


def test_a_worker_serves_on_after_the_broker_restarts(broker_factory: BrokerFactory, tmp_path: Path) -> None:
    with broker_factory() as broker:
        site = Site(broker, tmp_path)
        try:
            piece = scale_slice()
            worker = site.worker(piece)
            camera = site.camera()
            assert camera.ask(camera.job([("w1", piece.id)], {"x": ramp()}))
            broker.kill()
            wait_for(lambda: not worker.ready and not camera.bus.connected, "the loss")
            broker.start()
            wait_for(lambda: worker.ready and camera.bus.connected, "the return")
            observer = site.observer()
            wait_for(lambda: observer.status and observer.slices, "the retained state")
            assert observer.status[-1].state == "ready"
            assert observer.slices[-1].ready == [piece.id]
            assert camera.ask(camera.job([("w1", piece.id)], {"x": ramp()}))
        finally:
            site.close()


PROGRAM = """
import logging, sys
from pathlib import Path
from splitbus_worker import load_config
from splitbus_worker.service import run
logging.basicConfig(level=logging.INFO)
sys.exit(run(load_config(Path(sys.argv[1]))))
"""


class Notices:
    """What would reach systemd."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.all: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._thread = threading.Thread(target=self._listen, name="notices")
        self._thread.start()

    def count(self, text: str) -> int:
        return sum(text in notice for notice in self.all)

    def _listen(self) -> None:
        while (notice := self._socket.recv(4096).decode()) != "END":
            self.all.append(notice)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"END", self.path)
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[Notices]:
    notices = Notices(tmp_path / "notify")
    yield notices
    notices.close()


class Process:
    """A worker as a program of its own."""

    def __init__(self, folder: Path, notices: Notices, site: str, broker: str) -> None:
        config = folder / "worker.toml"
        config.write_text(
            f'site = "{site}"\nnode = "w1"\nthreads = 1\nstate_dir = "store"\n[broker]\nurl = "{broker}"\n'
        )
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(config)],
                stderr=log,
                env=os.environ | {"NOTIFY_SOCKET": notices.path},
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10)


@pytest.fixture
def process(tmp_path: Path, notices: Notices) -> Iterator[Callable[[str, str], Process]]:
    started: list[Process] = []

    def start(site: str, broker: str) -> Process:
        started.append(Process(tmp_path, notices, site, broker))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_a_killed_worker_is_seen_at_once(site: Site, process: Callable[[str, str], Process]) -> None:
    observer = site.observer()
    program = process(site.name, site.broker.url)
    wait_for(lambda: observer.status and observer.status[-1].state == "ready", "the start")
    killed = time.monotonic()
    program.popen.kill()
    wait_for(lambda: observer.status[-1].state == "lost", "the will")
    assert time.monotonic() - killed < 2
    assert observer.status[-1].boot == observer.status[0].boot


def test_the_daemon_tells_systemd_and_ends_in_order(
    site: Site, process: Callable[[str, str], Process], notices: Notices
) -> None:
    observer = site.observer()
    program = process(site.name, site.broker.url)
    wait_for(lambda: notices.count("READY=1"), "READY")
    wait_for(lambda: notices.count("WATCHDOG=1"), "WATCHDOG")
    wait_for(lambda: notices.count(f"STATUS=w1 serves site {site.name}"), "STATUS")
    program.popen.send_signal(signal.SIGTERM)
    assert program.popen.wait(10) == 0
    wait_for(lambda: notices.count("STOPPING=1"), "STOPPING")
    wait_for(lambda: observer.status[-1].state == "stopping", "the goodbye")
    assert "Traceback" not in program.log


def test_the_daemon_waits_for_a_broker_that_is_not_there_yet(
    broker_factory: BrokerFactory, process: Callable[[str, str], Process], notices: Notices
) -> None:
    with broker_factory() as broker:
        broker.kill()
        process("t", broker.url)
        wait_for(lambda: notices.count("cannot connect"), "the reason in the status line")
        wait_for(lambda: notices.count("EXTEND_TIMEOUT_USEC"), "asking for time")
        assert not notices.count("READY=1")
        assert not notices.count("WATCHDOG=1")
        broker.start()
        wait_for(lambda: notices.count("READY=1"), "READY")


def test_the_watchdog_starves_when_nothing_comes_back(
    broker_factory: BrokerFactory, tmp_path: Path, notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", notices.path)
    monkeypatch.setattr(service, "ECHO_SECONDS", 1.5)
    monkeypatch.setattr(systemd, "POLL_SECONDS", 0.1)
    with broker_factory() as broker:
        stop = threading.Event()
        config = WorkerConfig(site="t", node="w1", broker=BrokerSettings(url=broker.url), state_dir=tmp_path / "store")
        daemon = threading.Thread(target=service.run, args=(config,), kwargs={"stop": stop})
        daemon.start()
        try:
            wait_for(lambda: notices.count("WATCHDOG=1") > 3, "the feeding")
            broker.suspend()
            time.sleep(2.5)
            fed, polled = notices.count("WATCHDOG=1"), notices.count("STATUS=")
            wait_for(lambda: notices.count("STATUS=") > polled + 5, "the daemon living on")
            assert notices.count("WATCHDOG=1") == fed
            broker.resume()
            wait_for(lambda: notices.count("WATCHDOG=1") > fed, "the feeding again")
        finally:
            broker.resume()
            stop.set()
            daemon.join(20)


def test_a_wrong_password_is_told_with_the_remedy(
    broker_factory: BrokerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with broker_factory(users={"w1": "right"}) as broker:
        settings = BrokerSettings.of(broker.url, username="w1", password="wrong")  # noqa: S106 - a test's
        config = WorkerConfig(site="t", node="w1", broker=settings, state_dir=tmp_path)
        stop = threading.Event()
        codes: list[int] = []
        daemon = threading.Thread(target=lambda: codes.append(service.run(config, stop=stop)), daemon=True)
        daemon.start()
        try:
            wait_for(lambda: "check username" in caplog.text, "the log line")
        finally:
            stop.set()
            daemon.join(20)
        assert codes == [0]
        assert "wrong" not in caplog.text.replace("wrong password", "")


def test_a_password_file_that_is_not_there_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    settings = BrokerSettings.of("mqtt://localhost", username="w1", password_file=tmp_path / "none")
    with pytest.raises(ConfigError, match="password_file"):
        service.run(WorkerConfig(node="w1", broker=settings, state_dir=tmp_path))


def test_answers_find_the_right_session(site: Site) -> None:
    piece = scale_slice()
    site.worker(piece)
    first = Camera(site.bus(), site=site.name, boot="b1")
    second = Camera(site.bus(), site=site.name, boot="b2")
    second.send(second.job([("w1", piece.id)], {"x": ramp()}))
    packet = second.parcel().packet
    assert isinstance(packet, Result)
    assert first.replies.empty()


def _states(observer: Observer) -> list[str]:
    return [status.state for status in observer.status]


def test_a_worker_that_frames_cannot_reach_is_lost_until_they_can(site: Site) -> None:
    """Its other connection lives, but for a while a thief has the one that jobs come by."""
    worker, observer = site.worker(), site.observer()
    wait_for(lambda: _states(observer) == ["ready"], "the worker's status")
    thief = MqttBus(site.broker.host, site.broker.port, client_id="w1-data")
    wait_for(lambda: "lost" in _states(observer), "the loss of its data connection")
    thief.close()
    wait_for(lambda: _states(observer)[-1] == "ready", "its return")
    assert "frames cannot reach it" in [status.reason for status in observer.status]
    assert worker.control.connected, "it was there all along"
