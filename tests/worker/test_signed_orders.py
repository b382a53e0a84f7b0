"""A worker that was given the gateway's key: orders, peers and slices of others are refused, counted and told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.worker.rig import Camera, Observer, arrays, memory_worker, ramp, wait_for
from tests.worker.slices import SmallSlice, add_one_slice, scale_slice

from splitbus_gateway.signing import Signer
from splitbus_runtime.bus import MemoryBroker
from splitbus_schemas.ids import sha256
from splitbus_schemas.messages import Message, NodeWork, Peer, Peers, SliceManifest
from splitbus_schemas.signature import SLICE
from splitbus_schemas.topics import PEERS, WORK
from splitbus_worker import Worker

GATEWAY, STRANGER, NOBODY = Signer(Ed25519PrivateKey.generate()), Signer(Ed25519PrivateKey.generate()), Signer()
TOPIC = WORK.at("t", node="w1")


def signed(piece: SmallSlice, by: Signer) -> SmallSlice:
    """The slice with its manifest signed, which gives it another name."""
    manifest = by.seal(SLICE, SliceManifest.from_json(piece.blobs[piece.id]))
    blobs = {sha: data for sha, data in piece.blobs.items() if sha != piece.id} | {sha256(manifest): manifest}
    return replace(piece, id=sha256(manifest), blobs=blobs)


@pytest.fixture
def bus() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def worker(bus: MemoryBroker, tmp_path: Path) -> Iterator[Worker]:
    running = memory_worker(bus, tmp_path, gateway_key=GATEWAY.public)
    yield running
    running.stop()


def say(bus: MemoryBroker, message: Message, by: Signer, topic: str = TOPIC, *, signed_for: str = "") -> None:
    bus.connect().publish(topic, by.seal(signed_for or topic, message), retain=True)


def test_a_signed_order_for_a_signed_slice_is_done(bus: MemoryBroker, worker: Worker) -> None:
    piece = signed(scale_slice(), GATEWAY)
    piece.put(worker.agent.store)
    observer = Observer(bus.connect(), site="t", node="w1")
    say(bus, NodeWork(slices=[piece.id]), GATEWAY)
    observer.wait_ready(piece)
    camera = Camera(bus.connect(), site="t")
    answer = camera.ask(camera.job([("w1", piece.id)], {"x": ramp()}))
    np.testing.assert_array_equal(answer["y"], piece.reference({"x": ramp()})[0])


@pytest.mark.parametrize(
    ("by", "signed_for", "counter"),
    [(NOBODY, "", "unsigned"), (STRANGER, "", "forged"), (GATEWAY, WORK.at("t", node="w2"), "forged")],
    ids=["unsigned", "forged", "another-workers"],
)
def test_other_orders_change_nothing(
    bus: MemoryBroker, worker: Worker, by: Signer, signed_for: str, counter: str
) -> None:
    piece, other = signed(scale_slice(), GATEWAY), signed(add_one_slice(), GATEWAY)
    for known in (piece, other):
        known.put(worker.agent.store)
    observer = Observer(bus.connect(), site="t", node="w1")
    say(bus, NodeWork(slices=[piece.id]), GATEWAY)
    observer.wait_ready(piece)
    say(bus, NodeWork(slices=[other.id]), by, signed_for=signed_for)
    wait_for(lambda: worker.agent.counters.get(counter) == 1, "the refusal")
    assert worker.agent.shelf.ready == [piece.id]
    assert any(f'"what":"{counter}"'.encode() in alert and TOPIC.encode() in alert for alert in observer.alerts)


def test_peers_of_nobody_are_not_probed(bus: MemoryBroker, worker: Worker) -> None:
    say(bus, Peers(peers=[Peer(node="w2", tier="cloud")]), NOBODY, PEERS.at("t", node="w1"))
    wait_for(lambda: worker.agent.counters.get("unsigned") == 1, "the refusal")


@pytest.mark.parametrize(("by", "word"), [(NOBODY, "unsigned"), (STRANGER, "forged")])
def test_a_slice_that_the_gateway_did_not_sign_is_not_opened_whoever_asks(
    bus: MemoryBroker, worker: Worker, by: Signer, word: str
) -> None:
    piece = signed(scale_slice(), by)
    piece.put(worker.agent.store)
    observer = Observer(bus.connect(), site="t", node="w1")
    say(bus, NodeWork(slices=[piece.id]), GATEWAY)
    wait_for(lambda: observer.slices and piece.id in observer.slices[-1].failed, "the failure")
    assert f"is {word} and not opened" in observer.slices[-1].failed[piece.id]
    camera = Camera(bus.connect(), site="t")
    camera.send(camera.job([("w1", piece.id)], {"x": ramp()}))
    assert camera.refusal().reason == "slice"
    wait_for(lambda: worker.agent.counters.get("slices_failed", 0) >= 2, "the second failure")
    assert worker.agent.shelf.ready == []


@pytest.mark.parametrize("part", ["graph", "weight"])
def test_a_changed_byte_of_graph_or_weights_is_found_before_use(bus: MemoryBroker, worker: Worker, part: str) -> None:
    """The signed manifest names them by hash; what lies in the store under that name must match it."""
    piece, store = signed(scale_slice(), GATEWAY), worker.agent.store
    piece.put(store)
    sha = piece.graph if part == "graph" else piece.weights[0]
    data = bytearray(store.read(sha))
    data[-1] ^= 1
    store.path(sha).write_bytes(data)
    camera = Camera(bus.connect(), site="t")
    camera.send(camera.job([("w1", piece.id)], {"x": ramp()}))
    assert camera.refusal().reason == "slice"
    wait_for(lambda: not store.has(sha), "the damaged blob is forgotten")
    assert worker.agent.shelf.ready == []


def test_without_a_key_orders_are_believed_as_before(bus: MemoryBroker, tmp_path: Path) -> None:
    piece = scale_slice()
    piece.put_in(tmp_path / "store")
    running = memory_worker(bus, tmp_path)
    try:
        observer = Observer(bus.connect(), site="t", node="w1")
        say(bus, NodeWork(slices=[piece.id]), NOBODY)
        observer.wait_ready(piece)
        camera = Camera(bus.connect(), site="t")
        assert "y" in arrays_of(camera, piece)
    finally:
        running.stop()


def arrays_of(camera: Camera, piece: SmallSlice) -> dict[str, object]:
    camera.send(camera.job([("w1", piece.id)], {"x": ramp()}))
    return dict(arrays(camera.result()))
