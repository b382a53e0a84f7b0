"""Warm slices: opened once, equal to the whole model, dropped at the limit, and errors that name the slice."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.worker.slices import Array, SmallSlice, scale_slice

from splitbus_runtime.shelf import SESSION_OVERHEAD_BYTES, Shelf
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import BlobError, ModelError
from splitbus_schemas.ids import sha256

X = np.arange(8, dtype=np.float32)


class Source:
    """Where missing blobs come from."""

    def __init__(self, store: BlobStore, *slices: SmallSlice) -> None:
        self.store = store
        self.blobs = {name: data for piece in slices for name, data in piece.blobs.items()}
        self.asked: list[str] = []

    def fetch(self, sha: str) -> None:
        self.asked.append(sha)
        if sha not in self.blobs:
            raise BlobError(f"blob {sha[:12]} is nowhere")
        self.store.put(self.blobs[sha])


def shelf_with(folder: Path, *slices: SmallSlice, limit_bytes: int = 2**30) -> tuple[Shelf, Source]:
    store = BlobStore(folder)
    source = Source(store, *slices)
    return Shelf(store, source.fetch, threads=1, limit_bytes=limit_bytes), source


def test_a_slice_is_fetched_opened_and_equal_to_the_whole(tmp_path: Path) -> None:
    piece = scale_slice()
    shelf, source = shelf_with(tmp_path, piece)
    assert shelf.get(piece.id) is None
    ((name, array, final),) = shelf.load(piece.id).run({"x": X})
    assert (name, final) == ("y", True)
    np.testing.assert_array_equal(array, piece.reference({"x": X})[0])
    assert set(source.asked) == set(piece.blobs)
    assert shelf.ready == [piece.id]


def test_what_is_in_the_store_is_not_fetched(tmp_path: Path) -> None:
    piece = scale_slice()
    piece.put_in(tmp_path)
    shelf, source = shelf_with(tmp_path)
    shelf.load(piece.id)
    assert source.asked == []


def test_what_rotted_on_disk_is_fetched_again(tmp_path: Path) -> None:
    piece = scale_slice()
    piece.put_in(tmp_path)
    shelf, source = shelf_with(tmp_path, piece)
    for blob in piece.blobs:
        path = source.store.path(blob)
        path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    ((_, array, _),) = shelf.load(piece.id).run({"x": X})
    np.testing.assert_array_equal(array, piece.reference({"x": X})[0])
    assert sorted(source.asked) == sorted(piece.blobs)


def test_many_threads_open_a_slice_once(tmp_path: Path) -> None:
    piece = scale_slice()
    shelf, source = shelf_with(tmp_path, piece)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(id(shelf.load(piece.id)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(source.asked) == len(piece.blobs)


def test_the_least_recently_used_gives_way(tmp_path: Path) -> None:
    a, b, c = (scale_slice(factor=float(i)) for i in (1, 2, 3))
    shelf, _ = shelf_with(tmp_path, a, b, c, limit_bytes=2 * SESSION_OVERHEAD_BYTES + 1000)
    shelf.load(a.id)
    shelf.load(b.id)
    shelf.get(a.id)
    shelf.load(c.id)
    assert set(shelf.ready) == {a.id, c.id}
    assert shelf.evictions == 1
    assert shelf.cost_bytes <= 2 * SESSION_OVERHEAD_BYTES + 1000


def test_a_slice_in_use_outlives_its_eviction(tmp_path: Path) -> None:
    piece = scale_slice()
    shelf, _ = shelf_with(tmp_path, piece)
    held = shelf.load(piece.id)
    shelf.drop(set())
    assert shelf.ready == []
    assert held.run({"x": X})


def test_a_slice_too_large_for_the_node_says_so(tmp_path: Path) -> None:
    piece = scale_slice()
    shelf, _ = shelf_with(tmp_path, piece, limit_bytes=1000)
    with pytest.raises(ModelError, match="raise memory_mb"):
        shelf.load(piece.id)
    assert shelf.ready == []


BAD_FEEDS: dict[str, tuple[dict[str, Array], str]] = {
    "missing": ({}, "needs tensor 'x'"),
    "shape": ({"x": X[:4]}, r"float32\[8\], not float32\[4\]"),
    "rank": ({"x": X.reshape(2, 4)}, r"not float32\[2, 4\]"),
    "dtype": ({"x": X.astype(np.int32)}, "not int32"),
}


@pytest.mark.parametrize("case", BAD_FEEDS)
def test_feeds_that_do_not_fit_are_named(tmp_path: Path, case: str) -> None:
    feeds, words = BAD_FEEDS[case]
    piece = scale_slice()
    shelf, _ = shelf_with(tmp_path, piece)
    with pytest.raises(ModelError, match=words):
        shelf.load(piece.id).run(feeds)


def test_a_missing_blob_is_no_lasting_harm(tmp_path: Path) -> None:
    piece = scale_slice()
    shelf, source = shelf_with(tmp_path, piece)
    weight = source.blobs.pop(piece.weights[0])
    with pytest.raises(BlobError, match="nowhere"):
        shelf.load(piece.id)
    source.blobs[piece.weights[0]] = weight
    assert shelf.load(piece.id)


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    shelf, source = shelf_with(tmp_path)
    junk = b'{"v": 1}'
    source.blobs[sha256(junk)] = junk
    with pytest.raises(ModelError, match=f"slice {sha256(junk)[:12]} has a manifest that cannot be read"):
        shelf.load(sha256(junk))


def test_slowdown_stretches_a_run(tmp_path: Path) -> None:
    piece = scale_slice(2**20)
    piece.put_in(tmp_path)
    feeds = {"x": np.zeros(2**20, np.float32)}

    def fastest(slowdown: float) -> float:
        opened = Shelf(BlobStore(tmp_path), lambda _sha: None, threads=1, slowdown=slowdown).load(piece.id)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            opened.run(feeds)
            times.append(time.perf_counter() - began)
        return min(times)

    assert fastest(20.0) > 5 * fastest(1.0)


def test_memory_is_given_back_once_a_slice_is_gone_and_not_while_a_frame_runs_in_it(tmp_path: Path) -> None:
    piece = scale_slice()
    shelf, _ = shelf_with(tmp_path, piece)
    running = [shelf.load(piece.id)]
    shelf.drop(set())
    assert not shelf.tidy()
    running.clear()
    assert shelf.tidy()
    assert not shelf.tidy()
