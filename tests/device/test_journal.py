"""The journal's records: whatever happens to the bytes, a record is lost or it is right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_device.journal import (
    MAX_KEY_BYTES,
    PREFIX_BYTES,
    Kind,
    Record,
    key_objection,
    read_record,
    record_bytes,
    scan,
    write_record,
)
from splitbus_schemas.errors import PayloadTooLargeError

KEYS = st.text(min_size=1, max_size=20).filter(lambda key: not key_objection(key))
RECORDS = st.builds(
    Record, st.sampled_from(Kind), KEYS, st.integers(0, 2**64 - 1), st.binary(max_size=40), st.binary(max_size=200)
)
SEGMENT = 7


def written(records: list[Record], segment: int = SEGMENT) -> tuple[bytes, list[int]]:
    """A segment's bytes, and where each record ends."""
    data, ends = b"", []
    for record in records:
        halves = (record.body[:7], record.body[7:])
        data += b"".join(write_record(segment, len(data), record.kind, record.key, record.number, record.facts, halves))
        ends.append(len(data))
    return data, ends


def sound(data: bytes, segment: int = SEGMENT) -> list[Record]:
    found = [entry.record for entry in scan(segment, data) if entry.record is not None]
    return [Record(r.kind, r.key, r.number, r.facts, bytes(r.body)) for r in found]


@given(st.lists(RECORDS, max_size=6))
def test_what_was_written_is_read(records: list[Record]) -> None:
    data, ends = written(records)
    assert sound(data) == records
    assert [entry.spot.offset + entry.spot.length for entry in scan(SEGMENT, data)] == ends
    assert ends == [sum(record_bytes(r.key, r.facts, (r.body,)) for r in records[: i + 1]) for i in range(len(records))]


@given(st.lists(RECORDS, min_size=1, max_size=4), st.data())
def test_a_cut_anywhere_loses_only_the_torn_tail(records: list[Record], data: st.DataObject) -> None:
    whole, ends = written(records)
    cut = data.draw(st.integers(0, len(whole)))
    kept = [record for record, end in zip(records, ends, strict=True) if end <= cut]
    assert sound(whole[:cut]) == kept
    torn = [entry.spot for entry in scan(SEGMENT, whole[:cut]) if entry.record is None]
    assert sum(spot.length for spot in torn) == cut - max([end for end in ends if end <= cut], default=0)


def test_every_cut_and_every_flipped_bit_of_one_journal() -> None:
    records = [Record(Kind.INPUT, f"frame {n}", n, b"facts", bytes(range(30 * n, 30 * n + 20))) for n in range(1, 5)]
    whole, ends = written(records)
    begins = [0, *ends]
    for cut in range(len(whole) + 1):
        assert sound(whole[:cut]) == [r for r, end in zip(records, ends, strict=True) if end <= cut]
    for at in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            hit = next(i for i in range(4) if begins[i] <= at < ends[i])
            assert sound(bytes(damaged)) == records[:hit] + records[hit + 1 :], (at, bit)


@given(st.lists(RECORDS, min_size=1, max_size=4), st.data())
def test_damage_loses_the_records_it_touches_and_invents_none(records: list[Record], data: st.DataObject) -> None:
    whole, ends = written(records)
    at = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=60))
    damaged = whole[:at] + junk + whole[at + len(junk) :]
    begins = [0, *ends]
    untouched = [
        record
        for i, record in enumerate(records)
        if damaged[begins[i] : ends[i]] == whole[begins[i] : ends[i]]
    ]  # fmt: skip
    assert sound(damaged) == untouched


@given(st.binary(max_size=300))
def test_noise_is_no_record(noise: bytes) -> None:
    assert sound(noise) == []
    assert read_record(SEGMENT, 0, noise) is None


@given(RECORDS, RECORDS)
def test_a_record_counts_only_where_it_was_written(inner: Record, outer: Record) -> None:
    """A journal's bytes inside a frame's, or left from another segment, are no records."""
    copy, _ = written([inner])
    carrier = Record(outer.kind, outer.key, outer.number, outer.facts, copy)
    whole, _ = written([carrier])
    broken = bytearray(whole)
    broken[4] ^= 0xFF
    assert sound(whole) == [carrier]
    assert sound(bytes(broken)) == []
    assert sound(copy, segment=SEGMENT + 1) == []


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_BYTES + 1), "\ud800", 7, None])
def test_keys_that_cannot_be_are_objected_to(key: object) -> None:
    assert key_objection(key)


def test_a_record_beyond_the_limits_is_refused() -> None:
    with pytest.raises(PayloadTooLargeError, match="key of a frame has 300 bytes"):
        write_record(1, 0, Kind.INPUT, "x" * 300, 1)
    assert PREFIX_BYTES == 28
