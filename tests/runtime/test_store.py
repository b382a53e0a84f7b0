from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitbus_runtime.places import MAP_BYTES, Place
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import BlobError
from splitbus_schemas.ids import sha256
from splitbus_schemas.messages import WeightRef

MISSING = sha256(b"missing")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), offset=st.integers(0, 400), length=st.integers(0, 400))
def test_what_was_put_is_read_back_in_any_piece(tmp_path: Path, data: bytes, offset: int, length: int) -> None:
    store = BlobStore(tmp_path / "blobs")
    sha = store.put(data)
    assert sha == sha256(data)
    assert store.has(sha)
    assert store.size(sha) == len(data)
    assert store.read(sha) == data
    assert store.read(sha, offset, length) == data[offset : offset + length]


def test_a_blob_is_kept_once(store: BlobStore) -> None:
    assert store.put(b"same") == store.put(b"same")
    assert store.total_bytes == 4
    assert store.path(sha256(b"same")).read_bytes() == b"same"


def test_put_file_copies(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(b"x" * 3_000_000)
    sha = store.put_file(source)
    source.unlink()
    assert store.read(sha, 2_999_999) == b"x"
    assert store.path(sha).parent.name == sha[:2]
    assert {"blobs"} == {path.name for path in tmp_path.iterdir()}
    assert files_in(tmp_path) == {sha[2:]}


def test_put_file_names_a_file_that_is_not_there(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobError, match=r"gone\.onnx cannot be read: No such file"):
        store.put_file(tmp_path / "gone.onnx")
    assert files_in(store.folder) == set()


@pytest.mark.parametrize("read", [BlobStore.read, BlobStore.size, BlobStore.path])
def test_a_missing_blob_is_named(store: BlobStore, read: Callable[[BlobStore, str], object]) -> None:
    with pytest.raises(BlobError, match=MISSING):
        read(store, MISSING)
    assert not store.has(MISSING)


@pytest.mark.parametrize("name", ["", "abc", "../../etc/passwd", "A" * 64, f"{'a' * 63}/"])
def test_a_name_that_is_no_hash_never_becomes_a_path(store: BlobStore, name: str) -> None:
    with pytest.raises(BlobError, match="names no blob"):
        store.has(name)


# Bytes inside other files


def test_bytes_inside_a_file_are_a_blob_and_are_not_stored_again(store: BlobStore, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"head" + b"weights" + b"tail")
    sha = sha256(b"weights")
    store.remember_file(sha, model, 4, 7)
    assert store.has(sha)
    assert store.read(sha) == b"weights"
    assert store.read(sha, 2, 3) == b"igh"
    assert store.total_bytes == 0
    with pytest.raises(BlobError, match="lies inside"):
        store.path(sha)


def test_a_changed_file_no_longer_holds_the_blob(store: BlobStore, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"head" + b"weights")
    sha = sha256(b"weights")
    store.remember_file(sha, model, 4, 7)
    stat = model.stat()
    model.write_bytes(b"head" + b"another")
    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not store.has(sha)
    with pytest.raises(BlobError, match="must be fetched"):
        store.read(sha)


@pytest.mark.parametrize(("offset", "length"), [(0, 12), (12, None), (-1, 2), (3, -1)])
def test_a_place_outside_the_file_is_refused(store: BlobStore, tmp_path: Path, offset: int, length: int | None) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x" * 11)
    with pytest.raises(BlobError, match=r"model\.onnx"):
        store.remember_file(sha256(b"x"), model, offset, length)


def test_a_files_hash_is_computed_once_until_it_changes(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"one")
    assert store.file_hash(model) == sha256(b"one")
    assert store.path(sha256(b"one")) == model
    with monkeypatch.context() as patch:
        patch.setattr(Place, "sha256", lambda _self: pytest.fail("hashed again"))
        assert BlobStore(store.folder).file_hash(model) == sha256(b"one")
    model.write_bytes(b"three")
    assert store.file_hash(model) == sha256(b"three")


def test_a_weight_comes_from_the_model_file_that_holds_it(store: BlobStore, tmp_path: Path) -> None:
    values = np.arange(10, dtype=np.float32)
    model = tmp_path / "model.onnx"
    model.write_bytes(b"abc" + values.tobytes() + b"xyz")
    ref = WeightRef(
        name="w", dtype="float32", shape=[2, 5], sha256=sha256(values.tobytes()), bytes=40,
        file=store.file_hash(model), offset=3,
    )  # fmt: skip
    assert not store.has(ref.sha256)
    assert store.holds(ref)
    np.testing.assert_array_equal(store.weight(ref), values.reshape(2, 5))
    assert store.has(ref.sha256)  # checked once, remembered


def test_a_weight_whose_bytes_are_others_is_not_taken_from_the_file(store: BlobStore, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"\0" * 43)
    ref = WeightRef(
        name="w", dtype="float32", shape=[10], sha256=MISSING, bytes=40, file=store.file_hash(model), offset=3
    )
    with pytest.raises(BlobError, match=MISSING):
        store.weight(ref)


# Arrays


@pytest.mark.parametrize("elements", [5, MAP_BYTES])
def test_arrays_are_read_only_and_shared(store: BlobStore, elements: int) -> None:
    values = np.arange(elements, dtype=np.int32)
    sha = store.put(values.tobytes())
    array = store.array(sha, "int32", (elements,))
    np.testing.assert_array_equal(array, values)
    assert array is store.array(sha, "int32", (elements,))
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the process's mappings from Linux's /proc")
def test_a_large_aligned_array_is_mapped_and_an_unaligned_one_is_right_too(store: BlobStore, tmp_path: Path) -> None:
    values = np.arange(MAP_BYTES, dtype=np.float32)
    for offset in (8, 3):
        model = tmp_path / f"model{offset}.onnx"
        model.write_bytes(b"\1" * offset + values.tobytes())
        sha = sha256(f"{offset}".encode())  # the store trusts its caller here
        store.remember_file(sha, model, offset, values.nbytes)
        array = store.array(sha, np.dtype("float32"), [MAP_BYTES])
        np.testing.assert_array_equal(array, values)
        assert array.flags.aligned
        mapped = str(model) in Path("/proc/self/maps").read_text()
        assert mapped == (offset % 4 == 0)


def test_an_array_of_another_size_is_refused(store: BlobStore) -> None:
    sha = store.put(b"\0" * 12)
    with pytest.raises(BlobError, match=r"12 bytes .* float32 \[4\]: that needs 16"):
        store.array(sha, "float32", (4,))


def test_a_scalar_and_an_empty_array(store: BlobStore) -> None:
    assert store.array(store.put(b"\5"), "uint8", ()) == 5
    assert store.array(store.put(b""), "float32", (0, 3)).shape == (0, 3)


# Downloads


def test_a_download_resumes_after_a_restart(store: BlobStore) -> None:
    data = bytes(range(256)) * 100
    sha = sha256(data)
    assert store.partial(sha) == 0
    assert store.append(sha, data[:1000]) == 1000
    again = BlobStore(store.folder)
    assert again.partial(sha) == 1000
    assert not again.has(sha)
    again.append(sha, data[500:5000], at=500)  # a piece that came twice
    assert again.append(sha, data[5000:]) == len(data)
    again.finish(sha)
    assert again.read(sha) == data
    assert files_in(store.folder) == {sha[2:]}


def test_a_gap_in_a_download_is_refused(store: BlobStore) -> None:
    store.append(MISSING, b"abc")
    with pytest.raises(BlobError, match="is at 3, a piece for 4 would leave a gap"):
        store.append(MISSING, b"e", at=4)


def test_wrong_bytes_are_removed_and_named(store: BlobStore) -> None:
    store.append(MISSING, b"something else")
    with pytest.raises(BlobError, match=f"{MISSING} arrived with hash {sha256(b'something else')}"):
        store.finish(MISSING)
    assert store.partial(MISSING) == 0
    assert not store.has(MISSING)


def test_finishing_twice_is_harmless_and_never_started_is_not(store: BlobStore) -> None:
    sha = sha256(b"abc")
    store.append(sha, b"abc")
    store.finish(sha)
    store.finish(sha)
    assert store.append(sha, b"abc") == 3
    with pytest.raises(BlobError, match=MISSING):
        store.finish(MISSING)


def test_two_downloads_of_one_blob_at_once_do_not_harm_each_other(store: BlobStore) -> None:
    data = os.urandom(200_000)
    sha = sha256(data)
    barrier = threading.Barrier(2)
    errors: list[BaseException] = []

    def download() -> None:
        mine = BlobStore(store.folder)
        barrier.wait()
        try:
            for begin in range(0, len(data), 1000):
                mine.append(sha, data[begin : begin + 1000], at=begin)
            if not mine.has(sha):
                mine.finish(sha)
        except BlobError as error:
            errors.append(error)

    threads = [threading.Thread(target=download) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read(sha) == data
    assert not errors


# Room


def test_the_least_recently_used_unpinned_blob_gives_way(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", limit_bytes=300)
    oldest, pinned, used = (store.put(bytes([n]) * 100) for n in range(3))
    store.pin({pinned})
    store.read(oldest)
    store.read(used)
    store.read(oldest)  # now `used` is the least recently used of those that may go
    newest = store.put(b"n" * 100)
    assert [store.has(sha) for sha in (oldest, pinned, used, newest)] == [True, True, False, True]
    assert store.total_bytes == 300


def test_pins_hold_even_when_the_limit_does_not(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", limit_bytes=10)
    first = store.put(b"a" * 100)
    store.pin({first})
    second = store.put(b"b" * 100)
    assert store.has(first)
    assert store.has(second)  # what was just put is there for the one who put it


def test_eviction_leaves_files_of_others_alone(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"m" * 1000)
    store = BlobStore(tmp_path / "blobs", limit_bytes=10)
    sha = store.file_hash(model)
    store.put(b"x" * 20)
    assert store.evict(0) == 20
    assert store.read(sha) == b"m" * 1000


def test_discard_forgets_blob_reference_and_download(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"ref")
    store.remember_file(sha256(b"ref"), tmp_path / "f")
    store.append(MISSING, b"part")
    for sha in (store.put(b"blob"), sha256(b"ref"), MISSING):
        store.discard(sha)
        assert not store.has(sha)
    assert store.partial(MISSING) == 0
    assert store.total_bytes == 0


def test_a_store_opened_again_knows_its_size_and_drops_stale_downloads(store: BlobStore) -> None:
    store.put(b"12345")
    store.append(MISSING, b"part")
    part = next(store.folder.rglob("*.part"))
    assert BlobStore(store.folder).partial(MISSING) == 4
    os.utime(part, (0, 0))
    again = BlobStore(store.folder)
    assert again.partial(MISSING) == 0
    assert again.total_bytes == 5


# Trouble


def test_a_full_disk_is_one_clear_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """A file-size limit makes the kernel refuse to write, as a full disk does."""
    program = f"""
        import resource, signal
        from pathlib import Path
        from splitbus_runtime.store import BlobStore
        from splitbus_schemas.errors import BlobError
        store = BlobStore(Path({str(tmp_path / "blobs")!r}))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        for write in (store.put, lambda data: store.append("0" * 64, data)):
            try:
                write(bytes(20_000))
            except BlobError as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("cannot be written" in line and "free some space" in line for line in lines)
    assert {path.suffix for path in (tmp_path / "blobs").rglob("*") if path.is_file()} <= {".part"}
    assert os.strerror(errno.EFBIG) in lines[0]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BlobError, match="file/blobs"):
        BlobStore(tmp_path / "file" / "blobs")


def test_a_damaged_reference_is_as_good_as_none(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"ref")
    sha = sha256(b"ref")
    for text in ("", "{", "[]", '{"path": 1}', "\udcff"):
        store.remember_file(sha, tmp_path / "f")
        next(store.folder.rglob("*.ref")).write_bytes(text.encode(errors="surrogateescape"))
        assert not store.has(sha)


def test_a_damaged_blob_is_found_and_forgotten(store: BlobStore, caplog: pytest.LogCaptureFixture) -> None:
    sha = store.put(b"weights")
    assert store.check(sha)
    store.path(sha).write_bytes(b"wEights")
    os.utime(store.path(sha), ns=(0, 0))
    assert not store.check(sha)
    assert not store.has(sha)
    assert f"blob {sha}" in caplog.text
    assert store.put(b"weights") == sha
    assert store.check(sha)
    assert not store.check(MISSING)


def test_an_unchanged_blob_is_checked_by_reading_it_once(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = store.put(b"weights")
    assert store.check(sha)
    monkeypatch.setattr(Place, "sha256", lambda _: pytest.fail("it was read again"))
    assert store.check(sha)


def _put_many(folder: Path, seed: int) -> None:
    store = BlobStore(folder)
    for n in range(50):
        store.put(f"{(n + seed) % 50}".encode() * 1000)


def test_two_processes_put_the_same_blobs_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_put_many, args=(folder, seed)) for seed in (0, 25)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    store = BlobStore(folder)
    for n in range(50):
        data = f"{n}".encode() * 1000
        assert store.read(sha256(data)) == data
    assert not list(folder.glob("*.tmp"))
