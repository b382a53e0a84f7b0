"""Blobs over the bus: whole, resumed, in any order, patient with silence, and never wrong."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.worker.blob_server import BlobServer

from splitbus_runtime import blobs
from splitbus_runtime.blobs import BlobClient
from splitbus_runtime.bus import MemoryBroker
from splitbus_runtime.store import BlobStore
from splitbus_runtime.transport import PacketPort
from splitbus_schemas.errors import BlobError
from splitbus_schemas.ids import sha256
from splitbus_schemas.limits import BLOB_CHUNK_BYTES
from splitbus_schemas.messages import BlobRequest
from splitbus_schemas.packet_types import BlobPiece

SIZES = [0, 1, BLOB_CHUNK_BYTES - 1, BLOB_CHUNK_BYTES, BLOB_CHUNK_BYTES + 1, 9 * BLOB_CHUNK_BYTES + 7]


def blob_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class Ends:
    """A client and a server of blobs on one broker."""

    def __init__(self, folder: Path, *contents: bytes, server: type[BlobServer] = BlobServer) -> None:
        broker = MemoryBroker()
        self.store = BlobStore(folder)
        port = PacketPort(broker.connect(), lambda _topic, _error: None)
        self.client = BlobClient(port, site="t", node="w1", boot="b1", store=self.store)
        self.server = server(broker.connect(), {sha256(data): data for data in contents})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "STALL_SECONDS", 0.05)


@pytest.mark.parametrize("size", SIZES)
def test_any_size_arrives(tmp_path: Path, size: int) -> None:
    data = blob_of(size)
    ends = Ends(tmp_path, data)
    ends.client.fetch(sha256(data))
    assert ends.store.read(sha256(data)) == data
    assert len(ends.server.requests) == -(-size // BLOB_CHUNK_BYTES)


def test_what_is_there_is_not_asked_for(tmp_path: Path) -> None:
    data = blob_of(10)
    ends = Ends(tmp_path)
    ends.store.put(data)
    ends.client.fetch(sha256(data))
    assert ends.server.requests == []


def test_a_download_resumes_where_it_stopped(tmp_path: Path) -> None:
    data = blob_of(SIZES[-1])
    ends = Ends(tmp_path, data)
    ends.store.append(sha256(data), data[: 3 * BLOB_CHUNK_BYTES], 0)
    ends.client.fetch(sha256(data))
    assert ends.store.read(sha256(data)) == data
    assert min(offset for _, offset in ends.server.requests) == 3 * BLOB_CHUNK_BYTES


class Shuffled(BlobServer):
    """Keeps answers back, sends them in another order, twice, or not at all."""

    seed = 0

    def pieces(self, request: BlobRequest) -> list[BlobPiece]:
        dice = random.Random(f"{self.seed} {len(self.requests)}")
        held: list[BlobPiece] = self.__dict__.setdefault("held", [])
        held += super().pieces(request) * dice.choice([0, 1, 1, 2])
        dice.shuffle(held)
        going, held[:] = held[:2], held[2:]
        return going


@given(st.integers(0, 10**9))
@settings(max_examples=12)
def test_order_loss_and_doubling_do_not_matter(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    data = blob_of(SIZES[-1])

    class Seeded(Shuffled):
        pass

    Seeded.seed = seed
    ends = Ends(tmp_path_factory.mktemp("blobs"), data, server=Seeded)
    ends.client.fetch(sha256(data))
    assert ends.store.read(sha256(data)) == data


def test_a_silent_gateway_is_named_and_what_came_is_kept(tmp_path: Path) -> None:
    data = blob_of(SIZES[-1])
    ends = Ends(tmp_path, data)
    ends.store.append(sha256(data), data[:100], 0)
    ends.server.mute.set()
    with pytest.raises(BlobError, match=r"did not come within 0.2 s \(100 bytes are kept\).*is the gateway running"):
        ends.client.fetch(sha256(data), patience_s=0.2)
    assert len(ends.server.requests) >= 3, "it asks again while it waits"
    ends.server.mute.clear()
    ends.client.fetch(sha256(data))
    assert ends.store.read(sha256(data)) == data


def test_a_blob_that_nobody_has(tmp_path: Path) -> None:
    with pytest.raises(BlobError, match="the gateway has no blob abababababab: no such blob here"):
        Ends(tmp_path).client.fetch("ab" * 32)


class Liar(BlobServer):
    def pieces(self, request: BlobRequest) -> list[BlobPiece]:
        return [
            BlobPiece(piece.sha256, piece.offset, piece.total, bytes(len(piece.data)))
            for piece in super().pieces(request)
        ]


def test_other_bytes_than_the_hash_promises_are_thrown_away(tmp_path: Path) -> None:
    data = blob_of(1000)
    ends = Ends(tmp_path, data, server=Liar)
    with pytest.raises(BlobError, match="arrived with hash"):
        ends.client.fetch(sha256(data))
    assert not ends.store.has(sha256(data))
    assert ends.store.partial(sha256(data)) == 0


def run_together(*jobs: Callable[[], None]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


def test_threads_share_a_download(tmp_path: Path) -> None:
    data = blob_of(SIZES[-1])
    ends = Ends(tmp_path, data)
    run_together(*[lambda: ends.client.fetch(sha256(data))] * 6)
    assert ends.store.read(sha256(data)) == data
    assert len(ends.server.requests) == len(set(ends.server.requests))


def test_closing_ends_a_download_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "STALL_SECONDS", 30.0)
    ends = Ends(tmp_path, blob_of(10))
    ends.server.mute.set()
    errors: list[str] = []

    def fetch() -> None:
        with pytest.raises(BlobError) as caught:
            ends.client.fetch(sha256(blob_of(10)))
        errors.append(str(caught.value))

    thread = threading.Thread(target=fetch)
    thread.start()
    while not ends.server.requests:
        pass
    ends.client.close()
    thread.join(2)
    assert not thread.is_alive()
    assert "the node is stopping" in errors[0]


def test_in_a_hurry_a_download_that_stalls_ends_soon(tmp_path: Path) -> None:
    data = blob_of(SIZES[-1])
    ends = Ends(tmp_path, data)
    ends.server.mute.set()
    hurry = threading.Timer(0.1, ends.client.hurry)
    hurry.start()
    with pytest.raises(BlobError, match=r"did not come within 0.05 s"):
        ends.client.fetch(sha256(data))
    hurry.join()


def test_in_a_hurry_a_download_that_goes_on_is_not_ended(tmp_path: Path) -> None:
    data = blob_of(SIZES[-1])
    ends = Ends(tmp_path, data)

    class Hurried(BlobServer):
        def pieces(self, request: BlobRequest) -> list[BlobPiece]:
            ends.client.hurry()
            return super().pieces(request)

    ends = Ends(tmp_path / "other", data, server=Hurried)
    ends.client.fetch(sha256(data))
    assert ends.store.read(sha256(data)) == data
