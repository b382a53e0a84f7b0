"""A worker that gets slow: it says so, tries itself while no frame comes, and says when it is well."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from tests.worker.rig import Camera, Observer, memory_worker, wait_for
from tests.worker.slices import SmallSlice, make_slice, slow_slice

from splitbus_runtime.bus import MemoryBroker
from splitbus_schemas.messages import Alert
from splitbus_worker import Worker

pytestmark = pytest.mark.clocked

SLOWER = 12.0


@pytest.fixture
def piece() -> SmallSlice:
    return slow_slice(12)


@pytest.fixture
def bus() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def worker(bus: MemoryBroker, piece: SmallSlice, tmp_path: Path) -> Iterator[Worker]:
    made = memory_worker(bus, tmp_path, piece)
    yield made
    made.stop()


def slow_down(worker: Worker, piece: SmallSlice, times: float) -> None:
    """The session emulates a slower machine from now on, as the setting `slowdown` makes it."""
    opened = worker.agent.shelf.get(piece.id)
    assert opened is not None
    opened.session._slowdown = times


def ask(camera: Camera, piece: SmallSlice, frames: int) -> None:

    for _ in range(frames):
        camera.ask(camera.job([("w1", piece.id)], {"x": np.ones((256, 256), np.float32)}))
        time.sleep(0.08)


def test_it_is_told_when_it_is_slow_and_without_frames_when_it_is_well(
    bus: MemoryBroker, worker: Worker, piece: SmallSlice
) -> None:
    """WIRE-71, the worker's part."""
    camera, seen = Camera(bus.connect(), site="t"), Observer(bus.connect(), site="t", node="w1")
    ask(camera, piece, 20)
    assert seen.status[-1].pace is None
    slow_down(worker, piece, SLOWER)
    ask(camera, piece, 8)  # then nobody asks any more
    wait_for(lambda: seen.status[-1].pace, "the worker saying that it is slow", 3)
    assert seen.status[-1].state == "ready"
    alerts = [Alert.from_json(payload) for payload in seen.alerts]
    assert [alert.what for alert in alerts] == ["slow_runs"]
    worker.agent.shelf.drop(set())  # the gateway needs it there no more
    time.sleep(0.5)
    assert seen.status[-1].pace is not None, "it is slow all the while"
    trials = worker._trials
    assert trials._slice is not None
    trials._slice.session._slowdown = 1.0
    began = time.monotonic()
    wait_for(lambda: seen.status[-1].pace is None, "the worker saying that it is well", 3)
    assert time.monotonic() - began < 2.0


def test_a_slice_that_made_up_tensors_do_not_fit_is_tried_once(bus: MemoryBroker, tmp_path: Path) -> None:
    """Its second size has to be 8, which its manifest does not say."""

    piece = make_slice(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": [1, None]},
        outputs={"y": [1, None]},
        final=["y"],
        weights={"w": np.ones((8, 8), np.float32)},
    )
    worker = memory_worker(bus, tmp_path, piece)
    try:
        camera = Camera(bus.connect(), site="t")
        for _ in range(12):
            camera.ask(camera.job([("w1", piece.id)], {"x": np.ones((1, 8), np.float32)}))
            time.sleep(0.1)
        wait_for(lambda: piece.id in worker._trials._untried, "the trial that failed")
        assert worker._trials.pace.factor is None
        assert worker.agent.counters["answered"] == 12
    finally:
        worker.stop()
