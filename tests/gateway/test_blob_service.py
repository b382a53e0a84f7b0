from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_gateway.blob_service import MAX_WAITING, BlobService, FairQueue, Pace
from splitbus_runtime.bus import Delivery, MemoryBroker, MemoryBus
from splitbus_runtime.store import BlobStore
from splitbus_schemas.ids import sha256
from splitbus_schemas.limits import BLOB_CHUNK_BYTES
from splitbus_schemas.messages import Alert, BlobRequest
from splitbus_schemas.packet import decode
from splitbus_schemas.packet_types import BlobPiece
from splitbus_schemas.parts import Assembler
from splitbus_schemas.topics import ALERT, BLOB_DATA, BLOB_GET

SITE = "home"
DATA = bytes(range(256)) * 800  # 204,800 bytes: four pieces


@pytest.fixture
def broker() -> MemoryBroker:  # in memory, in place of the real one
    return MemoryBroker()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def service(broker: MemoryBroker, store: BlobStore) -> Iterator[BlobService]:
    service = BlobService(broker.connect(), store, site=SITE, node="gateway", bytes_per_s=1e9)
    yield service
    service.close()


def wait_for(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


class Asker:
    """A node that asks and keeps what comes."""

    def __init__(self, bus: MemoryBus, node: str = "cam1") -> None:
        self.bus, self.node = bus, node
        self.data_topic = BLOB_DATA.at(SITE, node=node, boot="b1")
        self.pieces: list[BlobPiece] = []
        self.messages = 0
        self._assembler = Assembler()
        bus.subscribe(self.data_topic, self._take)

    def _take(self, delivery: Delivery) -> None:
        self.messages += 1
        if arrival := self._assembler.feed(delivery.payload, time.monotonic()):
            piece = decode(arrival.data)
            assert isinstance(piece, BlobPiece)
            self.pieces.append(piece)

    def ask(self, sha: str, offset: int = 0, *, reply_to: str = "", node: str = "") -> None:
        request = BlobRequest(sha256=sha, offset=offset, reply_to=reply_to or self.data_topic)
        self.bus.publish(BLOB_GET.at(SITE, node=node or self.node), request.to_json())


def test_a_blob_arrives_piece_by_piece(broker: MemoryBroker, store: BlobStore, service: BlobService) -> None:
    sha = store.put(DATA)
    asker = Asker(broker.connect())
    offsets = range(0, len(DATA), BLOB_CHUNK_BYTES)
    for offset in offsets:
        asker.ask(sha, offset)
    wait_for(lambda: len(asker.pieces) == len(offsets))
    assert [piece.offset for piece in asker.pieces] == list(offsets)
    assert {piece.total for piece in asker.pieces} == {len(DATA)}
    assert b"".join(bytes(piece.data) for piece in asker.pieces) == DATA
    assert service.counters["blob_pieces"] == len(offsets)


def test_bytes_inside_a_model_file_are_served(
    broker: MemoryBroker, store: BlobStore, service: BlobService, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph" + b"w" * 100)
    sha = sha256(b"w" * 100)
    store.remember_file(sha, tmp_path / "model.onnx", 5, 100)
    asker = Asker(broker.connect())
    asker.ask(sha)
    wait_for(lambda: asker.pieces)
    assert bytes(asker.pieces[0].data) == b"w" * 100


def test_an_unknown_blob_is_answered_with_a_reason(broker: MemoryBroker, service: BlobService) -> None:
    asker = Asker(broker.connect())
    asker.ask(sha256(b"never seen"))
    wait_for(lambda: asker.pieces)
    piece = asker.pieces[0]
    assert (piece.total, bytes(piece.data)) == (0, b"")
    assert "does not have blob" in piece.detail
    assert service.counters["blob_missing"] == 1


def test_an_offset_beyond_the_end_gives_an_empty_piece(
    broker: MemoryBroker, store: BlobStore, service: BlobService
) -> None:
    sha = store.put(b"short")
    asker = Asker(broker.connect())
    asker.ask(sha, 1000)
    wait_for(lambda: asker.pieces)
    assert (asker.pieces[0].offset, asker.pieces[0].total, bytes(asker.pieces[0].data)) == (5, 5, b"")


@pytest.mark.parametrize(
    "reply_to",
    [
        BLOB_DATA.at(SITE, node="cam2", boot="b1"),
        BLOB_DATA.at("garden", node="cam1", boot="b1"),
        "splitbus/v1/home/ctl/cam2/plan/abc",
    ],
)
def test_nothing_is_sent_to_another_nodes_topic(
    broker: MemoryBroker, store: BlobStore, service: BlobService, reply_to: str
) -> None:
    """A node must not make the gateway, which may write to all nodes, write where the node itself may not."""
    sha = store.put(b"secret")
    seen: list[Delivery] = []
    alerts: list[Alert] = []
    watcher = broker.connect()
    watcher.subscribe(reply_to, seen.append)
    watcher.subscribe(ALERT.at(SITE, node="gateway"), lambda d: alerts.append(Alert.from_json(d.payload)))
    asker = Asker(broker.connect())
    request = BlobRequest.model_construct(sha256=sha, reply_to=reply_to)
    broker.connect().publish(BLOB_GET.at(SITE, node="cam1"), request.to_json())
    asker.ask(sha)  # answered after it, so that the wait below means something
    wait_for(lambda: asker.pieces)
    assert not seen
    assert service.counters["blob_refused"] == 1
    assert alerts[0].what == "blob_refused"
    assert "reply_to" in alerts[0].reason or reply_to in alerts[0].reason


def test_a_damaged_request_is_counted_and_told_once_a_second(
    broker: MemoryBroker, store: BlobStore, service: BlobService
) -> None:
    alerts: list[Delivery] = []
    watcher = broker.connect()
    watcher.subscribe(ALERT.at(SITE, node="gateway"), alerts.append)
    for payload in (b"", b"{", b'{"sha256": "abc", "reply_to": "x"}', b"\xff"):
        watcher.publish(BLOB_GET.at(SITE, node="cam1"), payload)
    assert service.counters["blob_refused"] == 4
    assert len(alerts) == 1
    asker = Asker(broker.connect())
    asker.ask(store.put(b"still answered"))
    wait_for(lambda: asker.pieces)


def test_a_retained_request_is_of_the_past(broker: MemoryBroker, store: BlobStore) -> None:
    sha = store.put(b"x")
    asker = Asker(broker.connect())
    request = BlobRequest(sha256=sha, reply_to=asker.data_topic)
    broker.connect().publish(BLOB_GET.at(SITE, node="cam1"), request.to_json(), retain=True)
    service = BlobService(broker.connect(), store, site=SITE, node="gateway")
    asker.ask(store.put(b"newer"))
    wait_for(lambda: asker.pieces)
    service.close()
    assert [bytes(piece.data) for piece in asker.pieces] == [b"newer"]


def test_a_piece_larger_than_the_broker_takes_goes_in_parts(store: BlobStore) -> None:
    broker = MemoryBroker(max_packet_bytes=20_000)
    service = BlobService(broker.connect(), store, site=SITE, node="gateway", bytes_per_s=1e9)
    sha = store.put(DATA)
    asker = Asker(broker.connect())
    asker.ask(sha)
    wait_for(lambda: asker.pieces)
    service.close()
    assert asker.messages > 1
    assert bytes(asker.pieces[0].data) == DATA[:BLOB_CHUNK_BYTES]


def test_the_rate_is_kept(broker: MemoryBroker, store: BlobStore) -> None:
    service = BlobService(broker.connect(), store, site=SITE, node="gateway", bytes_per_s=1_000_000)
    sha = store.put(DATA)
    asker = Asker(broker.connect())
    started = time.monotonic()
    for offset in range(0, len(DATA), BLOB_CHUNK_BYTES):
        asker.ask(sha, offset)
    wait_for(lambda: len(asker.pieces) == 4)
    service.close()
    # The last piece goes when the three before it, less a burst, have had their time.
    assert time.monotonic() - started >= 3 * BLOB_CHUNK_BYTES / 1e6 - 0.06


def test_closing_does_not_wait_for_the_rate(broker: MemoryBroker, store: BlobStore) -> None:
    service = BlobService(broker.connect(), store, site=SITE, node="gateway", bytes_per_s=100)
    asker = Asker(broker.connect())
    sha = store.put(DATA)
    for offset in range(0, len(DATA), BLOB_CHUNK_BYTES):
        asker.ask(sha, offset)
    started = time.monotonic()
    service.close()
    assert time.monotonic() - started < 2.0
    asker.ask(sha)
    assert "splitbus-blobs" not in {thread.name for thread in threading.enumerate()}


def test_a_greedy_node_does_not_hold_up_another(broker: MemoryBroker, store: BlobStore) -> None:
    service = BlobService(broker.connect(), store, site=SITE, node="gateway", bytes_per_s=200_000)
    sha = store.put(bytes(BLOB_CHUNK_BYTES * 100))
    greedy, modest = Asker(broker.connect(), "greedy"), Asker(broker.connect(), "modest")
    for piece in range(100):
        greedy.ask(sha, piece * BLOB_CHUNK_BYTES)
    before = len(greedy.pieces)
    modest.ask(sha)
    wait_for(lambda: modest.pieces)
    served = len(greedy.pieces) - before
    dropped = service.counters["blob_dropped"]
    service.close()
    assert served <= 2  # the one under way, and one whose turn it was
    assert 0 < dropped <= 100 - MAX_WAITING


def request(number: int, node: str = "cam1") -> BlobRequest:
    return BlobRequest(sha256=sha256(str(number).encode()), reply_to=BLOB_DATA.at(SITE, node=node, boot="b1"))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=40))
def test_every_request_taken_comes_out_once_and_in_its_nodes_order(puts: list[tuple[str, int]]) -> None:
    queue = FairQueue(max_waiting=3, max_nodes=2)
    expected: dict[str, list[BlobRequest]] = {}
    for node, number in puts:
        mine = expected.get(node, [])
        asked = request(number, node)
        fits = asked in mine or (len(mine) < 3 and (node in expected or len(expected) < 2))
        assert queue.put(node, asked) == fits
        if fits and asked not in mine:
            expected.setdefault(node, []).append(asked)
    out = list(iter(queue.pop, None))
    for node, mine in expected.items():
        assert [r for r in out if f"/{node}/" in r.reply_to] == mine
    assert len(out) == sum(map(len, expected.values()))


def test_nodes_take_turns() -> None:
    queue = FairQueue()
    for node, count in (("a", 3), ("b", 1), ("c", 2)):
        for number in range(count):
            queue.put(node, request(number, node))
    turns = [asked.reply_to.split("/")[-2] for asked in iter(queue.pop, None)]
    assert turns == ["a", "b", "c", "a", "c", "a"]


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 0.5)), min_size=1, max_size=30))
def test_the_pace_never_exceeds_its_rate_by_more_than_a_burst(sends: list[tuple[int, float]]) -> None:
    pace, now, sent = Pace(10_000), 0.0, 0
    for size, pause in sends:
        now += pause + pace.delay(size, now + pause)
        assert sent <= 10_000 * now + 10_000 * 0.05 + 1e-6
        sent += size
