"""The journal on disk: bounded, compacted, oldest first, and the same after every kind of end."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from splitbus_device.journal import Kind
from splitbus_device.journal_file import SEGMENTS, Fsync, Journal
from splitbus_schemas.errors import ConfigError, JournalError

LIMIT = 64 * 1024
BODY = 700


def opened(folder: Path, *, limit: int = LIMIT, fsync: Fsync = "never", evicted: list[str] | None = None) -> Journal:
    gone = [] if evicted is None else evicted
    return Journal(folder, limit_bytes=limit, fsync=fsync, evicted=gone.append)


def content(journal: Journal) -> dict[str, tuple[int | None, dict[Kind, bytes]]]:
    """Every frame that is kept: its number and the bodies of its records."""
    kept = {}
    for key in list(journal.ledger.entries):
        number, records = journal.records(key)
        kept[key] = (number, {kind: bytes(record.body) for kind, record in records.items() if record is not None})
    return kept


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.journal"))


def test_frames_survive_until_they_are_applied(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    numbers = [journal.append(Kind.INPUT, key, None, b"f", (key.encode(), b"!")) for key in "abc"]
    journal.append(Kind.HEAD, "b", numbers[1], b"", (b"head",))
    journal.append(Kind.ANSWER, "c", numbers[2], b"", (b"answer",))
    journal.append(Kind.APPLIED, "a", numbers[0])
    expected = {
        "b": (2, {Kind.INPUT: b"b!", Kind.HEAD: b"head"}),
        "c": (3, {Kind.ANSWER: b"answer"}),
    }  # fmt: skip
    assert content(journal) == expected
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.append(Kind.INPUT, "d")
    again = opened(tmp_path)
    assert content(again) == expected
    assert again.ledger.done("a")
    assert not again.ledger.done("b")
    assert again.append(Kind.INPUT, "d") == 4
    assert again.damaged_bytes == 0
    again.close()


def test_a_folder_is_one_sessions(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    with pytest.raises(ConfigError, match="is in use by another session"):
        opened(tmp_path)
    journal.close()
    opened(tmp_path).close()


def test_a_torn_tail_is_dropped_and_counted(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(Kind.INPUT, "a", None, b"", (b"x" * 100,))
    whole = journal.total_bytes
    journal.append(Kind.INPUT, "b", None, b"", (b"y" * 100,))
    journal.close()
    os.truncate(tmp_path / "00000001.journal", whole + 50)
    again = opened(tmp_path)
    assert (again.damaged_bytes, list(again.ledger.entries)) == (50, ["a"])
    again.append(Kind.INPUT, "c", None, b"", (b"z",))
    again.close()
    last = opened(tmp_path)
    assert (last.damaged_bytes, list(last.ledger.entries)) == (0, ["a", "c"])
    last.close()


def test_the_oldest_frames_give_way(tmp_path: Path) -> None:
    gone: list[str] = []
    journal = opened(tmp_path, evicted=gone)
    keys = [f"f{n}" for n in range(200)]
    for key in keys:
        journal.append(Kind.INPUT, key, None, b"", (key.encode() * (BODY // len(key)),))
        assert disk_bytes(tmp_path) == journal.total_bytes <= LIMIT
    kept = [key for key in keys if key not in gone]
    assert gone == keys[: len(gone)]
    assert len(kept) > LIMIT / 2 / (BODY + 50)
    assert list(journal.ledger.entries) == kept
    journal.close()
    again = opened(tmp_path)
    assert sorted(again.ledger.entries) == sorted(kept)
    again.close()


def test_what_is_done_makes_room(tmp_path: Path) -> None:
    """A steady stream runs for ever within the limit, loses nothing, and one frame that waits is carried along."""
    gone: list[str] = []
    journal = opened(tmp_path, evicted=gone)
    waiting = journal.append(Kind.INPUT, "waiting", None, b"", (b"w" * BODY,))
    for n in range(2000):
        number = journal.append(Kind.INPUT, f"f{n}", None, b"", (b"x" * BODY,))
        journal.append(Kind.ANSWER, f"f{n}", number, b"", (b"y" * 50,))
        journal.append(Kind.APPLIED, f"f{n}", number)
    assert disk_bytes(tmp_path) <= LIMIT
    assert gone == []
    assert content(journal) == {"waiting": (waiting, {Kind.INPUT: b"w" * BODY})}
    marks = len(journal.ledger.marks)
    assert journal.ledger.done("f1999")
    assert not journal.ledger.done("f0")
    assert marks > 100
    journal.close()
    again = opened(tmp_path)
    assert content(again) == {"waiting": (waiting, {Kind.INPUT: b"w" * BODY})}
    assert again.ledger.done("f1999")
    again.close()


def test_a_key_whose_mark_was_given_up_is_a_new_frame(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(Kind.APPLIED, "a", journal.append(Kind.INPUT, "a", None, b"", (b"old",)))
    assert journal.ledger.done("a")
    for n in range(400):
        journal.append(Kind.APPLIED, f"f{n}")
    assert not journal.ledger.done("a")
    journal.append(Kind.INPUT, "a", None, b"", (b"new",))
    for _ in range(2):
        assert content(journal)["a"][1] == {Kind.INPUT: b"new"}
        assert b"old" in (tmp_path / "00000001.journal").read_bytes()
        journal.close()
        journal = opened(tmp_path)
    journal.close()


def test_a_frame_too_large_is_refused_with_the_limit_that_it_needs(tmp_path: Path) -> None:
    journal = opened(tmp_path, limit=2**20)
    with pytest.raises(JournalError, match=r"frame 'big' needs 200031 bytes .* set limit_mb to 2 or more"):
        journal.append(Kind.INPUT, "big", None, b"", (b"x" * 200_000,))
    journal.close()
    journal = opened(tmp_path, limit=2 * 2**20)
    journal.append(Kind.INPUT, "big", None, b"", (b"x" * 200_000,))
    journal.close()


def test_damage_in_the_middle_costs_one_record(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for key in "abc":
        journal.append(Kind.INPUT, key, None, b"", (b"x" * 100,))
    journal.close()
    path = tmp_path / "00000001.journal"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    again = opened(tmp_path)
    assert list(again.ledger.entries) == ["a", "c"]
    assert again.damaged_bytes == len(data) // 3
    again.close()


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
def test_every_policy_keeps_frames_through_the_end_of_the_process(tmp_path: Path, fsync: Fsync) -> None:
    program = (
        "import os, sys; from pathlib import Path; from splitbus_device.journal_file import Journal, Kind\n"
        "journal = Journal(Path(sys.argv[1]), limit_bytes=2**20, fsync=sys.argv[2])\n"
        "for n in range(20): journal.append(Kind.INPUT, f'f{n}', None, b'', (b'x' * 100,))\n"
        "os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path), fsync], check=False)
    assert done.returncode == 9
    journal = opened(tmp_path)
    assert list(journal.ledger.entries) == [f"f{n}" for n in range(20)]
    journal.close()


def test_always_means_on_the_disk_before_it_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut may take is what was written after the last sync; with `always` that is no promised record."""
    synced = 0
    real = os.fdatasync

    def sync(file: int) -> None:
        nonlocal synced
        real(file)
        synced = os.fstat(file).st_size

    monkeypatch.setattr(os, "fdatasync", sync)
    journal = opened(tmp_path, fsync="always")
    for n in range(20):
        journal.append(Kind.INPUT, f"f{n}", None, b"", (b"x" * 100,))
        assert synced == journal.total_bytes
    journal.close()


def test_on_a_full_disk_the_record_is_refused_and_the_journal_stays_sound(tmp_path: Path) -> None:
    """The kernel's own limit on the size of files stands for the full disk: a write stops in the middle of a record."""
    journal = opened(tmp_path, limit=2**20)
    journal.append(Kind.INPUT, "a", None, b"", (b"x" * 1000,))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.total_bytes + 500, hard))
    try:
        with pytest.raises(JournalError, match=r"cannot be written: File too large; free some space"):
            journal.append(Kind.INPUT, "b", None, b"", (b"y" * 1000,))
        journal.append(Kind.INPUT, "small", None, b"", (b"z" * 10,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.append(Kind.INPUT, "c", None, b"", (b"y" * 1000,))
    assert disk_bytes(tmp_path) == journal.total_bytes
    journal.close()
    again = opened(tmp_path)
    assert (again.damaged_bytes, list(again.ledger.entries)) == (0, ["a", "small", "c"])
    again.close()


class Lives(RuleBasedStateMachine):
    """Any sequence of frames, answers, marks and ends of the process: the journal and a plain model agree."""

    limit = 24 * 1024

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.kept: dict[str, dict[Kind, bytes]] = {}
        self.done: set[str] = set()
        self.gone: list[str] = []
        self.folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"journal-{os.getpid()}-{id(self)}"  # noqa: S108
        self.journal = self.open()

    def open(self) -> Journal:
        return opened(self.folder, limit=self.limit, evicted=self.gone)

    def settle(self) -> None:
        for key in self.gone:
            self.kept.pop(key, None)
        self.gone.clear()

    @rule(size=st.integers(0, 2500))
    def accept(self, size: int) -> None:
        self.number += 1
        body = bytes([self.number % 256]) * size
        key = f"k{self.number}"
        self.journal.append(Kind.INPUT, key, None, b"", (body,))
        self.settle()
        self.kept[key] = {Kind.INPUT: body}

    @rule(kind=st.sampled_from((Kind.HEAD, Kind.ANSWER)), size=st.integers(0, 2500), data=st.data())
    def progress(self, kind: Kind, size: int, data: st.DataObject) -> None:
        if not self.kept:
            return
        body = bytes([size % 256]) * size
        key = data.draw(st.sampled_from(sorted(self.kept)))
        if kind is Kind.HEAD and Kind.ANSWER in self.kept[key]:
            return
        self.journal.append(kind, key, self.journal.ledger.entries[key].number, b"", (body,))
        records = self.kept.get(key, {}) if kind is Kind.HEAD else {}
        self.settle()
        if key in self.kept:
            self.kept[key] = records | {kind: body}
        elif key in self.journal.ledger.entries:  # it gave way to its own next record, which begins it anew
            self.kept[key] = {kind: body}

    @rule(data=st.data(), kind=st.sampled_from((Kind.APPLIED, Kind.FORGOTTEN)))
    def finish(self, data: st.DataObject, kind: Kind) -> None:
        if self.kept:
            key = data.draw(st.sampled_from(sorted(self.kept)))
            self.journal.append(kind, key, self.journal.ledger.entries[key].number)
            self.settle()
            self.kept.pop(key, None)
            if kind is Kind.APPLIED:
                self.done.add(key)

    @rule(torn=st.binary(max_size=50))
    def die(self, torn: bytes) -> None:
        self.journal.close()
        with max(self.folder.glob("*.journal")).open("ab") as file:
            file.write(torn)
        self.journal = self.open()
        assert self.journal.damaged_bytes == len(torn)

    @invariant()
    def agrees(self) -> None:
        assert {key: records for key, (_, records) in content(self.journal).items()} == self.kept
        assert set(self.journal.ledger.marks) <= self.done
        live = sum(spot.length for entry in self.journal.ledger.entries.values() for spot in entry.spots.values())
        live += sum(mark.spot.length for mark in self.journal.ledger.marks.values())
        assert self.journal.ledger.live_bytes == live
        assert disk_bytes(self.folder) == self.journal.total_bytes <= self.limit

    def teardown(self) -> None:
        self.journal.close()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.integers(0, 400))
@settings(max_examples=40)
def test_a_journal_cut_anywhere_opens_with_what_is_whole(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    journal = opened(folder)
    ends = []
    for key in "abcd":
        journal.append(Kind.INPUT, key, None, b"", (b"x" * 50,))
        ends.append(journal.total_bytes)
    journal.close()
    os.truncate(folder / "00000001.journal", min(cut, ends[-1]))
    again = opened(folder)
    assert list(again.ledger.entries) == [key for key, end in zip("abcd", ends, strict=True) if end <= cut]
    again.close()
    assert SEGMENTS >= 4
