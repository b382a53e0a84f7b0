"""A worker on a bus in memory: what it runs, forwards and refuses."""

from __future__ import annotations

import queue
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tests.worker.rig import Camera, Observer, arrays, memory_worker, ramp, wait_for
from tests.worker.slices import SmallSlice, add_one_slice, make_slice, scale_slice, slow_slice

from splitbus_runtime.bus import Delivery, MemoryBroker
from splitbus_schemas.messages import LinkReport, Peer, Peers, SliceManifest
from splitbus_schemas.packet import decode, encode, pack_tensor
from splitbus_schemas.packet_types import Job, Probe, Result, Spent
from splitbus_schemas.topics import JOB, LINK, PEERS, REPLY
from splitbus_worker import Worker

Start = Callable[..., Worker]


@pytest.fixture
def bus() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def start(bus: MemoryBroker, tmp_path: Path) -> Iterator[Start]:
    workers: list[Worker] = []

    def start_worker(*slices: SmallSlice, **settings: Any) -> Worker:
        folder = tmp_path / settings.get("node", "w1")
        workers.append(memory_worker(bus, folder, *slices, **settings))
        return workers[-1]

    yield start_worker
    for worker in workers:
        if not worker.agent.stopping:
            worker.stop()


@pytest.fixture
def camera(bus: MemoryBroker) -> Camera:
    return Camera(bus.connect(), site="t")


@pytest.mark.parametrize("coding", ["raw", "zstd"])
def test_runs_a_slice_as_onnxruntime_does(start: Start, camera: Camera, coding: str) -> None:
    piece = scale_slice()
    worker = start(piece)
    job = camera.job([("w1", piece.id)], {"x": ramp()}, coding=coding)
    camera.send(job)
    result = camera.result()
    np.testing.assert_array_equal(arrays(result)["y"], piece.reference({"x": ramp()})[0])
    assert (result.frame, result.plan, result.epoch, result.attempt) == (job.frame, "p1", 3, 1)
    assert result.tensors[0].coding == coding
    assert result.tensors[0].final
    device, spent = result.spent
    assert device == job.spent[0]
    assert spent.node == "w1"
    assert spent.run_us > 0
    wait_for(lambda: worker.agent.counters.get("answered") == 1, "the answer's count")
    assert worker.agent.counters["jobs"] == 1


def test_two_hops_share_a_frame(bus: MemoryBroker, start: Start, camera: Camera) -> None:
    first, second = scale_slice(final=False), add_one_slice()
    start(first)
    start(second, node="w2")
    seen: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
    bus.connect().subscribe(JOB.at("t", node="w2", device="+"), seen.put)
    job = camera.job([("w1", first.id), ("w2", second.id)], {"x": ramp()}, coding="zstd", budget_us=5_000_000)
    camera.send(job)
    result = camera.result()
    np.testing.assert_array_equal(arrays(result)["z"], ramp() * 3 + 1)
    assert [spent.node for spent in result.spent] == ["cam", "w1", "w2"]
    delivery = seen.get(timeout=5)
    forwarded = decode(delivery.payload)
    assert isinstance(forwarded, Job)
    assert delivery.topic == JOB.at("t", node="w2", device="cam")
    assert [hop.node for hop in forwarded.route] == ["w2"]
    assert (forwarded.reply_to, forwarded.frame, forwarded.model) == (job.reply_to, job.frame, job.model)
    assert forwarded.budget_us == job.budget_us - forwarded.spent[-1].total_us
    assert forwarded.tensors[0].coding == "zstd"
    assert dict(delivery.user) == {"plan": "p1/3", "model": job.model[:16]}


def test_a_frame_without_a_deadline_stays_so(start: Start, bus: MemoryBroker, camera: Camera) -> None:
    first = scale_slice(final=False)
    start(first)
    seen: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
    bus.connect().subscribe(JOB.at("t", node="w2", device="+"), seen.put)
    camera.send(camera.job([("w1", first.id), ("w2", "0" * 64)], {"x": ramp()}))
    forwarded = decode(seen.get(timeout=5).payload)
    assert isinstance(forwarded, Job)
    assert forwarded.budget_us == 0


def test_parts_of_the_answer_pass_unchanged(start: Start, camera: Camera) -> None:
    piece = scale_slice()
    start(piece)
    early = pack_tensor("scores", np.array([[1.5, 2.5]], np.float64), "zstd", final=True)
    also_fed = pack_tensor("x", ramp(), "raw", final=True)
    camera.send(camera.job([("w1", piece.id)], [early, also_fed]))
    result = camera.result()
    by_name = {tensor.name: tensor for tensor in result.tensors}
    assert set(by_name) == {"y", "scores", "x"}
    assert bytes(by_name["scores"].data) == bytes(early.data)
    assert by_name["scores"].coding == "zstd"
    assert by_name["scores"].final
    np.testing.assert_array_equal(arrays(result)["x"], ramp())


def bad_inputs() -> dict[str, tuple[list[Any], str]]:
    x = pack_tensor("x", ramp(), "raw")
    return {
        "unknown tensor": ([x, pack_tensor("q", ramp(), "raw")], "does not take tensor 'q'"),
        "missing tensor": ([], "needs tensor 'x'"),
        "wrong shape": ([pack_tensor("x", ramp(9), "raw")], r"takes 'x' as float32\[8\], not float32\[9\]"),
        "wrong dtype": ([pack_tensor("x", ramp().astype(np.float64), "raw")], "not float64"),
        "damaged bytes": ([replace(x, coding="zstd")], "zstd"),
        "too few bytes": ([replace(x, data=bytes(x.data)[:-4])], "raw tensor has 28 bytes"),
    }


@pytest.mark.parametrize("case", bad_inputs())
def test_refuses_tensors_that_do_not_fit(start: Start, camera: Camera, case: str) -> None:
    tensors, words = bad_inputs()[case]
    piece = scale_slice()
    start(piece)
    camera.send(camera.job([("w1", piece.id)], tensors))
    refusal = camera.refusal()
    assert refusal.reason == "input"
    assert_says(refusal.detail, words)
    assert camera.ask(camera.job([("w1", piece.id)], {"x": ramp()}))


def test_refuses_what_the_slice_cannot_run(start: Start, camera: Camera) -> None:
    piece = make_slice(
        [helper.make_node("Gather", ["x", "i"], ["y"])],
        inputs={"x": [8]},
        outputs={"y": [1]},
        weights={"i": np.array([11], np.int64)},
    )
    worker = start(piece)
    camera.send(camera.job([("w1", piece.id)], {"x": ramp()}))
    refusal = camera.refusal()
    assert (refusal.reason, refusal.node) == ("run", "w1")
    assert_says(refusal.detail, "onnxruntime could not run")
    assert worker.agent.counters["refused_run"] == 1


def test_refuses_a_route_that_begins_elsewhere(start: Start, camera: Camera) -> None:
    piece = scale_slice()
    start(piece)
    camera.send(camera.job([("w2", piece.id)], {"x": ramp()}), to="w1")
    refusal = camera.refusal()
    assert refusal.reason == "route"
    assert_says(refusal.detail, "begins at w2, this is w1")


def test_refuses_a_frame_that_has_been_everywhere(start: Start, camera: Camera) -> None:
    piece = scale_slice()
    start(piece)
    camera.send(camera.job([("w1", piece.id)], {"x": ramp()}, spent=[Spent(f"n{i}") for i in range(8)]))
    assert camera.refusal().reason == "route"


def test_refuses_what_expired_in_the_line(start: Start, camera: Camera) -> None:
    slow, quick = slow_slice(400), scale_slice()
    start(slow, quick)
    camera.send(camera.job([("w1", slow.id)], {"x": np.eye(256, dtype=np.float32)}))
    camera.send(camera.job([("w1", quick.id)], {"x": ramp()}, budget_us=1000))
    answers = [camera.parcel().packet, camera.parcel().packet]
    assert [getattr(answer, "reason", "answered") for answer in answers] == ["answered", "expired"]


def test_refuses_as_busy_what_cannot_be_in_time(start: Start, camera: Camera) -> None:
    slow = slow_slice(200)
    start(slow)
    feeds = {"x": np.eye(256, dtype=np.float32)}
    camera.send(camera.job([("w1", slow.id)], feeds))
    run_us = camera.result().spent[-1].run_us
    camera.send(camera.job([("w1", slow.id)], feeds))
    camera.send(camera.job([("w1", slow.id)], feeds, budget_us=run_us // 2))
    refusal = camera.refusal()
    assert refusal.reason == "busy"
    assert_says(refusal.detail, "w1 would need")
    camera.result()


def test_the_newest_frame_of_a_device_wins(start: Start, camera: Camera, bus: MemoryBroker) -> None:
    slow = slow_slice(600)
    worker = start(slow, queue_per_device=2, queue=3)
    other = Camera(bus.connect(), site="t", name="cam2")
    feeds = {"x": np.eye(256, dtype=np.float32)}
    for _ in range(4):
        camera.send(camera.job([("w1", slow.id)], feeds))
        wait_for(lambda: worker._line.running, "the first run")
    refusal = camera.refusal()
    assert (refusal.reason, refusal.frame.seq) == ("superseded", 2)
    other.send(other.job([("w1", slow.id)], feeds))
    third = Camera(bus.connect(), site="t", name="cam3")
    third.send(third.job([("w1", slow.id)], feeds))
    assert third.refusal().reason == "busy"
    assert [camera.result().frame.seq for _ in range(3)] == [1, 3, 4]
    other.result()


def test_an_unknown_slice_is_loaded_for_the_next_frame(start: Start, camera: Camera, tmp_path: Path) -> None:
    piece = scale_slice()
    worker = start()
    piece.put(worker.agent.store)
    camera.send(camera.job([("w1", piece.id)], {"x": ramp()}))
    refusal = camera.refusal()
    assert refusal.reason == "slice"
    assert_says(refusal.detail, "is being loaded")
    wait_for(lambda: piece.id in worker.agent.shelf.ready, "the slice's loading")
    np.testing.assert_array_equal(camera.ask(camera.job([("w1", piece.id)], {"x": ramp()}))["y"], ramp() * 3)


def test_a_slice_that_cannot_be_loaded_is_refused_with_the_reason(start: Start, camera: Camera) -> None:
    model, good = scale_slice(), scale_slice(factor=2.0)
    worker = start(good)
    store = worker.agent.store
    model.put(store)
    manifest = SliceManifest.from_json(model.blobs[model.id])
    broken = store.put(manifest.model_copy(update={"graph": store.put(b"no graph"), "graph_bytes": 8}).to_json())
    camera.send(camera.job([("w1", broken)], {"x": ramp()}))
    camera.refusal()
    wait_for(lambda: worker.agent.counters.get("slices_failed"), "the failure")
    camera.send(camera.job([("w1", broken)], {"x": ramp()}))
    assert_says(camera.refusal().detail, "could not be loaded")
    assert camera.ask(camera.job([("w1", good.id)], {"x": ramp()}))


def test_slices_beyond_the_memory_limit_are_closed(start: Start, bus: MemoryBroker) -> None:
    pieces = [scale_slice(2**20, factor=float(i)) for i in range(4)]  # 4 MB of weights and 4 of overhead each
    worker = start(*pieces, memory_mb=17)
    assert worker.agent.shelf.ready == [pieces[2].id, pieces[3].id]
    assert worker.agent.shelf.cost_bytes <= 17 * 2**20
    assert worker.agent.shelf.evictions == 2


def test_a_slice_larger_than_the_memory_limit_fails_with_the_reason(start: Start, bus: MemoryBroker) -> None:
    observer = Observer(bus.connect(), site="t", node="w1")
    worker = start(memory_mb=16)
    large = scale_slice(5 * 2**20)
    large.put(worker.agent.store)
    observer.order(large.id)
    wait_for(lambda: observer.slices and observer.slices[-1].failed, "the failure")
    assert_says(observer.slices[-1].failed[large.id], "raise memory_mb")


def test_garbage_is_counted_and_told(start: Start, camera: Camera, bus: MemoryBroker) -> None:
    piece = scale_slice()
    worker = start(piece)
    observer = Observer(bus.connect(), site="t", node="w1")
    sender = bus.connect()
    topic = JOB.at("t", node="w1", device="cam")
    for junk in (b"", b"x", b"SBus" + bytes(100), b"SBpt" + bytes(40), bytes(10_000)):
        sender.publish(topic, junk)
    assert worker.agent.counters["bad_messages"] == 5
    assert 1 <= len(observer.alerts) <= 5
    assert camera.ask(camera.job([("w1", piece.id)], {"x": ramp()}))


def test_a_flood_of_garbage_is_no_flood_of_alerts(start: Start, bus: MemoryBroker) -> None:
    worker = start()
    observer = Observer(bus.connect(), site="t", node="w1")
    sender = bus.connect()
    for _ in range(200):
        sender.publish(JOB.at("t", node="w1", device="cam"), b"junk")
    assert worker.agent.counters["bad_messages"] == 200
    assert len(observer.alerts) <= 15


def test_nobody_sends_for_another_device(start: Start, camera: Camera, bus: MemoryBroker) -> None:
    piece = scale_slice()
    worker = start(piece)
    victim = Camera(bus.connect(), site="t", name="victim")
    stolen = victim.job([("w1", piece.id)], {"x": ramp()})
    camera.send(stolen, under="cam")
    elsewhere = replace(camera.job([("w1", piece.id)], {"x": ramp()}), reply_to=REPLY.at("u", node="cam", boot="b1"))
    camera.send(elsewhere)
    probe = Probe(1, "victim", victim.reply_to, 10_000, bytes(10_000))
    camera.send(probe, under="cam")
    camera.send(Result(stolen.frame, "p1", 3, 1, ()), under="cam")
    assert worker.agent.counters["bad_jobs"] == 4
    assert "jobs" not in worker.agent.counters
    assert camera.replies.empty()
    assert victim.replies.empty()


def test_retained_jobs_are_ignored(start: Start, camera: Camera, bus: MemoryBroker) -> None:
    piece = scale_slice()
    job = camera.job([("w1", piece.id)], {"x": ramp()})
    bus.connect().publish(JOB.at("t", node="w1", device="cam"), encode(job), retain=True)
    worker = start(piece)
    assert "jobs" not in worker.agent.counters
    assert "bad_messages" not in worker.agent.counters


def test_probes_are_answered(start: Start, camera: Camera) -> None:
    start()
    camera.send(Probe(7, "cam", camera.reply_to, 9_000, bytes(20_000)), train=True)
    parcel = camera.parcel()
    assert parcel.train_bytes > 8_000
    echo = parcel.packet
    assert (getattr(echo, "id", 0), getattr(echo, "node", "")) == (7, "w1")
    assert getattr(echo, "train_bytes", 0) > 19_000


def test_workers_probe_each_other_and_publish_the_link(start: Start, bus: MemoryBroker) -> None:
    reports: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    reader = bus.connect()
    start()
    start(node="w2")
    reader.subscribe(LINK.at("t", node="w1", peer="w2"), lambda delivery: reports.put(delivery.payload))
    peers = Peers(peers=[Peer(node="w2", tier="cloud")])
    reader.publish(PEERS.at("t", node="w1"), peers.to_json(), retain=True)
    report = LinkReport.from_json(reports.get(timeout=5))
    assert report.rtt_ms is not None
    assert report.up_mbit
    assert report.down_mbit
    assert report.source == "probe"


def test_a_train_from_another_worker_measures_the_link(start: Start, camera: Camera) -> None:
    piece = scale_slice(4096)
    worker = start(piece)
    history = [Spent("cam"), Spent("w0")]
    camera.send(camera.job([("w1", piece.id)], {"x": ramp(4096)}, spent=history), train=True)
    parcel = camera.parcel()
    assert parcel.train_bytes, "the answer to a train is one"
    result = parcel.packet
    assert isinstance(result, Result)
    assert result.spent[-1].train_bytes > 16_000
    assert worker.agent.links.link("w0").down_mbit.count == 1
    assert worker.agent.links.link("cam").down_mbit.count == 0


def test_a_stopping_worker_refuses_and_finishes(start: Start, camera: Camera, bus: MemoryBroker) -> None:
    slow = slow_slice(300)
    worker = start(slow)
    observer = Observer(bus.connect(), site="t", node="w1")
    feeds = {"x": np.eye(256, dtype=np.float32)}
    camera.send(camera.job([("w1", slow.id)], feeds))
    wait_for(lambda: worker._line.running, "the run")
    camera.send(camera.job([("w1", slow.id)], feeds))
    worker.stop("for maintenance")
    answers = [camera.parcel().packet, camera.parcel().packet]
    assert [getattr(answer, "reason", "answered") for answer in answers] == ["stopping", "answered"]
    assert [(status.state, status.reason) for status in observer.status][-1] == ("stopping", "for maintenance")
    assert observer.status[0].state == "ready"


def test_load_and_counters_are_published(start: Start, camera: Camera, bus: MemoryBroker) -> None:
    piece = scale_slice()
    start(piece, concurrency=2)
    observer = Observer(bus.connect(), site="t", node="w1")
    camera.ask(camera.job([("w1", piece.id)], {"x": ramp()}))
    camera.send(camera.job([("w2", piece.id)], {"x": ramp()}), to="w1")
    camera.refusal()
    wait_for(lambda: observer.stats and observer.stats[-1].counters.get("answered"), "statistics")
    stats = observer.stats[-1]
    assert stats.counters["jobs"] == 2
    assert stats.counters["refused_route"] == 1
    assert (stats.concurrency, stats.sessions) == (2, 1)
    assert stats.broker_rtt_ms is not None or len(observer.stats) == 1


def test_several_frames_run_at_once(start: Start, camera: Camera) -> None:
    slow = slow_slice(100)
    worker = start(slow, concurrency=2, slowdown=20.0)  # mostly asleep, as on a slow machine
    for _ in range(3):
        camera.send(camera.job([("w1", slow.id)], {"x": np.eye(256, dtype=np.float32)}))
    wait_for(lambda: worker._line.running == 2, "two runs at once")
    assert len(worker._line) == 1
    assert sorted(camera.result().frame.seq for _ in range(3)) == [1, 2, 3]


def assert_says(text: str, words: str) -> None:
    assert re.search(words, text), text
