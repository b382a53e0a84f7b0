"""A disk that is full, as a node sees it: nothing is written to find out, and others hear of it both times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.disks import Disk, disk
from tests.worker.rig import Observer, wait_for

from splitbus_runtime.agent import Agent
from splitbus_runtime.bus import MemoryBroker
from splitbus_runtime.room import WANTED_BYTES, Room
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import BlobError, NoRoomError


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path / "small", 4) as mounted:
        yield mounted


@pytest.fixture
def store(small: Disk) -> BlobStore:
    return BlobStore(small.folder / "blobs")


def refusal(store: BlobStore) -> NoRoomError:
    """What the store says when nothing fits."""
    with pytest.raises(NoRoomError, match="free some space") as caught:
        store.put(bytes(100_000))
    return caught.value


def test_a_full_disk_is_noted_once_and_its_end_is_told_once(small: Disk, store: BlobStore) -> None:
    room = Room(store)
    assert not room.returned(), "it was never full"
    small.fill()
    error = refusal(store)
    assert (room.note(error), room.note(error)) == (True, False)
    assert room.full == str(error)
    assert not room.returned()
    small.free()
    assert (room.returned(), room.returned()) == (True, False)
    assert room.full == ""


def test_other_failures_are_none_of_its_business(store: BlobStore) -> None:
    room = Room(store)
    assert not room.note(BlobError("blob 12 is missing"))
    assert room.full == ""


def test_a_little_room_is_none(small: Disk, store: BlobStore) -> None:
    """What is tried next would fail again, and once more every second."""
    room = Room(store)
    small.fill()
    room.note(refusal(store))
    (small.folder / "ballast").unlink()
    small.fill(leave=WANTED_BYTES // 2)
    assert not room.returned()


def test_looking_leaves_nothing_behind(small: Disk, store: BlobStore) -> None:
    left = small.left
    assert store.has_room(WANTED_BYTES)
    assert not store.has_room(64 * 2**20)
    assert small.left == left
    assert [path for path in store.folder.rglob("*") if path.is_file()] == []


def test_a_node_says_that_its_disk_is_full_and_when_it_is_not(small: Disk, store: BlobStore) -> None:
    """WIRE-73"""
    broker = MemoryBroker(70_000)
    observer = Observer(broker.connect(), site="t", node="w1")
    agent = Agent(
        site="t", node="w1", boot="b1", tier="edge", control=broker.connect(), data=broker.connect(), store=store,
        threads=1,
    )  # fmt: skip
    agent.start()
    try:
        assert observer.slices[-1].full is None
        small.fill()
        error = refusal(store)
        agent.note_failure(error)
        assert observer.slices[-1].full == str(error)
        small.free()
        wait_for(lambda: observer.slices[-1].full is None, "word of the room", 2.5)
    finally:
        agent.stop()
