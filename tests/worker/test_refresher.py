"""A worker whose frames make one block slower than it was profiled: the profile follows, between frames."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from tests.worker.rig import Array, Camera, memory_worker, wait_for
from tests.worker.slices import MODEL, SmallSlice, make_slice

from splitbus_runtime import freshness
from splitbus_runtime.bus import MemoryBroker
from splitbus_schemas.messages import NodeProfile, NodeWork, ProfileRequest
from splitbus_schemas.topics import PROFILE, WORK
from splitbus_worker import Worker

pytestmark = pytest.mark.clocked

ROWS, SIDE = 64, 256
SCALE = (np.eye(SIDE)).astype(np.float32)
LIMIT = np.full((1,), 2.0, np.float32)
PRODUCTS = 12


def piece(first: int, last: int) -> SmallSlice:
    """Products, then the distinct values above 2, of which made-up inputs have none, then products."""
    nodes = []
    for block in range(first, last):
        x, y = f"t{block}", f"t{block + 1}"
        if block == 1:
            nodes += [
                helper.make_node("Greater", [x, "limit"], ["large"]),
                helper.make_node("Compress", [x, "large"], ["chosen"]),
                helper.make_node("Unique", ["chosen"], ["distinct"]),
                helper.make_node("ReduceSum", ["distinct"], ["total"], keepdims=0),
                helper.make_node("Sub", ["total", "total"], ["nothing"]),
                helper.make_node("Add", [x, "nothing"], [y]),
            ]  # fmt: skip
        else:
            names = [x, *(f"{x}_{turn}" for turn in range(PRODUCTS - 1)), y]
            nodes += [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)]
    weights: dict[str, Array] = {"limit": LIMIT} if 1 in range(first, last) else {}
    weights |= {"w": SCALE} if set(range(first, last)) - {1} else {}
    return make_slice(
        nodes, inputs={f"t{first}": [ROWS, SIDE]}, outputs={f"t{last}": [ROWS, SIDE]},
        final=[f"t{last}"] if last == 3 else [], weights=weights, span=(first, last),
    )  # fmt: skip


WHOLE = piece(0, 3)
BLOCKS = [piece(place, place + 1) for place in range(3)]


@pytest.fixture
def bus() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def worker(bus: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(freshness, "STALE_S", 0.0)
    monkeypatch.setattr(freshness, "SHARE", 0.5)
    monkeypatch.setattr(freshness, "LEAST_REST_S", 0.1)
    made = memory_worker(bus, tmp_path, WHOLE, *BLOCKS)
    yield made
    made.stop()


@pytest.fixture
def told(bus: MemoryBroker, worker: Worker) -> list[NodeProfile]:
    """The profiles that were published, the first one made."""
    found: list[NodeProfile] = []
    request = ProfileRequest(model=MODEL, cuts=[1, 2, 3], blocks=[block.id for block in BLOCKS], whole=WHOLE.id)
    reader = bus.connect()
    reader.subscribe(PROFILE.at("t", node="w1", model="+"), lambda d: found.append(NodeProfile.from_json(d.payload)))
    reader.publish(WORK.at("t", node="w1"), NodeWork(slices=[WHOLE.id], profiles=[request]).to_json(), retain=True)
    wait_for(lambda: found, "the profile", 30)
    return found


def feed(camera: Camera, frame: Array, seconds: float, until: object = None) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (callable(until) and until()):
        camera.ask(camera.job([("w1", WHOLE.id)], {"t0": frame}))
        time.sleep(0.06)


def share(profile: NodeProfile) -> float:
    return profile.block_ms[1] / profile.whole_ms


def test_the_profile_follows_a_block_that_real_frames_make_slower(
    bus: MemoryBroker, worker: Worker, told: list[NodeProfile]
) -> None:
    frame = np.random.default_rng(1).random((ROWS, SIDE), np.float32) * 10
    before = told[-1]
    feed(Camera(bus.connect(), site="t"), frame, 40.0, lambda: share(told[-1]) > 0.5)
    assert share(before) < 0.4
    assert share(told[-1]) > 0.5, worker.agent.counters
    assert told[-1].round == before.round
    assert worker.agent.counters["blocks_moved"] == len(told) - 1


def test_frames_like_those_of_the_profile_move_nothing(
    bus: MemoryBroker, worker: Worker, told: list[NodeProfile]
) -> None:
    frame = np.random.default_rng(0).random((ROWS, SIDE), np.float32)
    camera = Camera(bus.connect(), site="t")
    feed(camera, frame, 40.0, lambda: worker.agent.counters.get("blocks_timed", 0) >= 6)
    assert worker.agent.counters["blocks_timed"] >= 6
    assert share(told[-1]) < 0.4


def test_without_frames_nothing_is_timed(worker: Worker, told: list[NodeProfile]) -> None:
    time.sleep(1.0)
    assert "blocks_timed" not in worker.agent.counters
    assert worker.agent.counters.get("blocks_us", 0) == 0
    assert len(told) == 1
