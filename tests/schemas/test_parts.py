"""Packets in parts: whatever the order, the packet comes out; whatever else comes, the assembler stays small."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_schemas.errors import DecodeError, PayloadTooLargeError, VersionError
from splitbus_schemas.limits import TRAIN_MIN_BYTES
from splitbus_schemas.parts import Arrival, Assembler, split

PREFIX = struct.Struct("<4sBBHHHIIQ")
"""Written out once more: the tests must not follow the code when it drifts."""


def payloads(packet: bytes, number: int = 1, limit: int = 100, *, train: bool = False) -> list[bytes]:
    return [bytes(part) for part in split(packet, number=number, limit=limit, train=train)]


def part(content: bytes = b"x", **fields: Any) -> bytes:
    """A part by hand: the first of two of a packet of 10 bytes, unless said otherwise."""
    facts = {"magic": b"SBpt", "version": 1, "zero": 0, "count": 2, "index": 0, "zero2": 0, "offset": 0, "total": 10}
    facts |= {"number": 1, **fields}
    return PREFIX.pack(*facts.values()) + content


def feed_all(assembler: Assembler, parts: list[bytes], now: float = 0.0) -> list[Arrival]:
    return [arrival for payload in parts if (arrival := assembler.feed(payload, now)) is not None]


packets = st.integers(0, 2000).map(lambda size: random.Random(size).randbytes(size))


@given(packets, st.integers(30, 2100), st.booleans(), st.randoms())
def test_parts_in_any_order_and_more_than_once_make_the_packet_once(
    packet: bytes, limit: int, train: bool, chance: random.Random
) -> None:
    """WIRE-30, WIRE-31, WIRE-32, WIRE-33"""
    parts = payloads(packet, limit=limit, train=train)
    assert all(len(payload) <= limit for payload in parts)
    mixed = parts + chance.sample(parts, chance.randrange(len(parts))) if len(parts) > 1 else parts
    chance.shuffle(mixed)
    arrivals = feed_all(Assembler(), mixed)
    assert [bytes(arrival.data) for arrival in arrivals] == [packet]


@given(st.lists(packets, min_size=2, max_size=8), st.randoms())
def test_packets_may_be_interleaved(several: list[bytes], chance: random.Random) -> None:
    """WIRE-33, WIRE-34"""
    mixed = [payload for number, packet in enumerate(several) for payload in payloads(packet, number)]
    chance.shuffle(mixed)
    assembler = Assembler()
    arrivals = feed_all(assembler, mixed)
    assert sorted(bytes(arrival.data) for arrival in arrivals) == sorted(several)
    assert assembler.held_bytes == assembler.abandoned == 0


def test_a_packet_that_fits_is_sent_as_it_is() -> None:
    """WIRE-35"""
    short = bytes(TRAIN_MIN_BYTES - 1)
    assert payloads(b"SBus" + bytes(96)) == [b"SBus" + bytes(96)]
    assert len(payloads(b"SBus" + bytes(97))) == 2
    assert payloads(short, limit=10_000, train=True) == [short], "too short to time"


def test_a_train_begins_with_a_small_part_and_times_the_rest() -> None:
    """WIRE-37"""
    parts = payloads(bytes(10_000), limit=4096, train=True)
    assert [len(payload) for payload in parts] == [28 + 256, 4096, 4096, 28 + 10_000 - 256 - 2 * 4068]
    assembler = Assembler()
    assert assembler.feed(parts[0], now=5.0) is None
    assert assembler.feed(parts[1], now=5.1) is None
    assert assembler.feed(parts[2], now=5.2) is None
    assert assembler.feed(parts[3], now=5.5) == Arrival(bytes(10_000), 10_000 - 256, 0.5)


def test_a_whole_packet_is_no_train() -> None:
    """WIRE-35"""
    assert Assembler().feed(b"SBus", now=3.0) == Arrival(b"SBus")
    assert Assembler().feed(b"", now=3.0) == Arrival(b"")


@pytest.mark.parametrize("limit", [0, 28, 29, 1000])
def test_a_packet_that_would_need_too_many_parts_is_not_sent(limit: int) -> None:
    """WIRE-31: and nothing is prepared for it."""
    with pytest.raises(PayloadTooLargeError):
        payloads(bytes(2**21), limit=limit)


def test_the_most_parts_are_allowed() -> None:
    """WIRE-31"""
    parts = payloads(bytes(1024), limit=29)
    assert len(parts) == 1024
    assert [arrival.data for arrival in feed_all(Assembler(), parts[::-1])] == [bytes(1024)]
    with pytest.raises(PayloadTooLargeError):
        payloads(bytes(1025), limit=29)


REFUSED = {
    "one part": {"count": 1},
    "too many parts": {"count": 1025},
    "an index beyond the count": {"index": 2},
    "no bytes": {"content": b""},
    "bytes beyond the packet": {"offset": 10},
    "a packet beyond the limit": {"total": 2**26 + 1},
    "the first reserved field": {"zero": 1},
    "the second reserved field": {"zero2": 1},
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_a_part_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    """WIRE-30, WIRE-31"""
    assembler = Assembler()
    with pytest.raises(DecodeError):
        assembler.feed(part(**fields), now=0.0)
    assert assembler.held_bytes == 0


def test_a_part_of_another_version_is_refused() -> None:
    """WIRE-1"""
    with pytest.raises(VersionError):
        Assembler().feed(part(version=2), now=0.0)


def test_a_part_cut_off_in_its_prefix_is_refused() -> None:
    """WIRE-30"""
    for end in range(4, PREFIX.size):
        with pytest.raises(DecodeError):
            Assembler().feed(part()[:end], now=0.0)


@pytest.mark.parametrize("fields", [{"count": 3}, {"total": 11}])
def test_a_part_that_disagrees_with_an_earlier_one_is_refused(fields: dict[str, int]) -> None:
    """WIRE-34: and does not harm the packet that it pretends to belong to."""
    assembler = Assembler()
    assembler.feed(part(b"01234"), now=0.0)
    with pytest.raises(DecodeError, match="disagrees"):
        assembler.feed(part(b"abcde", index=1, offset=5, **fields), now=0.0)
    arrival = assembler.feed(part(b"56789", index=1, offset=5), now=0.0)
    assert arrival is not None
    assert arrival.data == b"0123456789"


@pytest.mark.parametrize(
    ("offset", "content"), [(6, b"6789"), (5, b"5678"), (4, b"456789"), (0, b"01234"), (4, b"45678")]
)
def test_parts_that_leave_a_hole_or_overlap_are_refused(offset: int, content: bytes) -> None:
    """WIRE-32"""
    assembler = Assembler()
    assembler.feed(part(b"01234"), now=0.0)
    with pytest.raises(DecodeError):
        assembler.feed(part(content, index=1, offset=offset), now=0.0)
    assert assembler.held_bytes == 0


def test_a_packet_that_is_not_complete_in_time_is_forgotten() -> None:
    """WIRE-36"""
    parts = payloads(bytes(200))
    assembler = Assembler()
    assembler.feed(parts[0], now=0.0)
    assembler.feed(payloads(bytes(200), number=2)[0], now=10.0)
    assert assembler.abandoned == 0
    assembler.feed(payloads(bytes(200), number=3)[0], now=10.1)
    assert (assembler.abandoned, assembler.held_bytes) == (1, 2 * 72)


def test_the_oldest_of_too_many_packets_is_forgotten() -> None:
    """WIRE-36"""
    assembler = Assembler()
    several = {number: payloads(bytes([number]) * 200, number) for number in range(9)}
    for parts in several.values():
        assembler.feed(parts[0], now=0.0)
    assert assembler.abandoned == 1
    arrivals = feed_all(assembler, [payload for number in range(1, 9) for payload in several[number][1:]])
    assert [arrival.data[0] for arrival in arrivals] == list(range(1, 9))


fields = st.fixed_dictionaries(
    {
        "version": st.sampled_from([1, 1, 1, 2]),
        "count": st.integers(0, 4),
        "index": st.integers(0, 4),
        "offset": st.integers(0, 30),
        "total": st.sampled_from([0, 10, 20, 2**32 - 1]),
        "number": st.integers(0, 2),
    }
)


@given(st.lists(st.tuples(fields, st.binary(max_size=20)), max_size=40))
def test_any_parts_make_packets_or_are_refused(parts: list[tuple[dict[str, int], bytes]]) -> None:
    """WIRE-2, WIRE-32: a packet that comes out has the size that was announced."""
    assembler = Assembler()
    for facts, content in parts:
        try:
            arrival = assembler.feed(part(content, **facts), now=0.0)
        except DecodeError:
            continue
        assert arrival is None or len(arrival.data) == facts["total"]
        assert assembler.held_bytes <= 3 * 20


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_random_bytes_as_parts_are_refused(contents: list[bytes]) -> None:
    """WIRE-2"""
    assembler = Assembler()
    for content in contents:
        try:
            assert assembler.feed(b"SBpt" + content, now=0.0) is None
        except DecodeError:
            continue
