"""Power cuts: at every sync of a journal's life the disk is frozen as far as it was synced, and opened again."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splitbus_device.journal import Kind
from splitbus_device.journal_file import Journal

LIMIT = 16 * 1024


class Disk:
    """What would be safely on the disk, by what was synced; `cut` gives a folder as a power cut would leave it."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch
        self.synced: dict[str, int] = {}
        self.cuts = 0

    def sync(self, file: int) -> None:
        self.synced[Path(f"/proc/self/fd/{file}").readlink().name] = os.fstat(file).st_size

    def cut(self, torn: bytes = b"") -> Path:
        """Of each segment what was synced, and perhaps some of what was written after it."""
        self.cuts += 1
        left = self.scratch / f"cut{self.cuts}"
        shutil.copytree(self.folder, left)
        for path in left.glob("*.journal"):
            data = path.read_bytes()
            synced = self.synced.get(path.name, 0)
            path.write_bytes(data[:synced] + (torn if synced < len(data) else b""))
        return left


def kept(folder: Path) -> tuple[dict[str, bytes], set[str]]:
    journal = Journal(folder, limit_bytes=LIMIT, fsync="never")
    try:
        bodies = {}
        for key in journal.ledger.entries:
            records = journal.records(key)[1]
            bodies[key] = b"".join(bytes(record.body) for record in records.values() if record is not None)
        return bodies, set(journal.ledger.marks)
    finally:
        journal.close()
        shutil.rmtree(folder)


@given(st.lists(st.tuples(st.sampled_from("iiihaf"), st.integers(0, 1500)), max_size=40), st.binary(max_size=40))
@example([("i", 900), ("i", 900), ("a", 0), ("i", 500)] * 10, b"")
@example([("i", 1500)] * 30, b"SBJ1")
@example([("i", 250), ("i", 250), ("a", 0)] * 25, b"")
@example([("i", 250), ("i", 250), ("f", 0)] * 25, b"")
@example([("i", 700), ("i", 30), ("f", 0)] * 25, b"")
@settings(max_examples=12)
def test_with_always_no_power_cut_takes_what_was_promised(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], torn: bytes
) -> None:
    folder = tmp_path_factory.mktemp("power")
    disk = Disk(folder / "journal", folder)
    promised: dict[str, bytes] = {}
    applied: set[str] = set()
    gone: set[str] = set()
    changing = ""

    def check() -> None:
        found, done = kept(disk.cut(torn))
        assert {key: found.get(key) for key in promised if key != changing} == {
            key: body for key, body in promised.items() if key != changing
        }
        assert found.keys() - promised.keys() <= {changing, *gone}
        assert applied - done <= {changing}

    def give_up(key: str) -> None:
        gone.add(key)
        del promised[key]

    def sync(file: int) -> None:
        check()
        disk.sync(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", sync)
        journal = Journal(disk.folder, limit_bytes=LIMIT, fsync="always", evicted=give_up)
        for number, (step, size) in enumerate(steps):
            if step == "i":
                changing = f"frame {number}"
                journal.append(Kind.INPUT, changing, None, b"", (b"i" * size,))
                promised[changing] = b"i" * size
            elif promised:
                changing = min(promised)
                count = journal.ledger.entries[changing].number
                if step == "h":
                    journal.append(Kind.ANSWER, changing, count, b"", (b"h" * size,))
                    promised[changing] = b"h" * size
                else:
                    journal.append(Kind.APPLIED if step == "a" else Kind.FORGOTTEN, changing, count)
                    promised.pop(changing, None)
                    applied |= {changing} if step == "a" else set()
            changing = ""
        check()
        journal.close()


@pytest.mark.clocked
def test_interval_syncs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path / "journal", tmp_path)
    monkeypatch.setattr(os, "fdatasync", disk.sync)
    journal = Journal(disk.folder, limit_bytes=2**20, fsync="interval", interval_s=0.05)
    journal.append(Kind.INPUT, "a", None, b"", (b"x" * 100,))
    until = time.monotonic() + 5
    while disk.synced.get("00000001.journal") != journal.total_bytes:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert kept(disk.cut())[0] == {"a": b"x" * 100}
    journal.close()


def test_a_sync_that_fails_in_the_background_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def fail(_file: int) -> None:
        raise OSError(5, "Input/output error")

    journal = Journal(tmp_path / "journal", limit_bytes=2**20, fsync="interval", interval_s=0.02, unsynced=told.append)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        journal.append(Kind.INPUT, "a", None, b"", (b"x" * 100,))
        until = time.monotonic() + 5
        while not told:
            assert time.monotonic() < until
            time.sleep(0.01)
    journal.close()
    assert told[0].endswith("cannot be written: Input/output error; check the folder")
