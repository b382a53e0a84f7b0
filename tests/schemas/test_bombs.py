"""Small messages that announce large things: refused, and nothing is set aside for them."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.packets import PACKETS
from tests.schemas.wire import read, seal, take_apart

from splitbus_schemas.codecs import decode_bytes, encode_bytes
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.packet import decode, encode, unpack_tensor
from splitbus_schemas.packet_types import Tensor
from splitbus_schemas.parts import Assembler

KIND, HEADER, BODY = take_apart(encode(PACKETS["job"]))
ZEROS = zstandard.ZstdCompressor().compress(bytes(2**26))
"""64 MiB in 6 kB."""


@contextlib.contextmanager
def allocating_at_most(size: int) -> Iterator[None]:
    """Fails when the block holds more than `size` bytes at any time."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= size


def with_tensors(rows: list[list[Any]], body: bytes) -> bytes:
    return seal(KIND, {**HEADER, "tensors": rows}, body)


def test_a_full_packet_of_full_bombs_is_refused_before_any_goes_off() -> None:
    """WIRE-4, WIRE-20: 64 tensors, each within the limit of one, are 4 GB together."""
    rows = [[f"t{i}", "uint8", [2**26], "zstd", len(ZEROS), False] for i in range(64)]
    packet = with_tensors(rows, ZEROS * 64)
    with allocating_at_most(2**20), pytest.raises(DecodeError, match="tensors decode to 4294967296"):
        decode(packet)


@pytest.mark.parametrize("shape", [[], [4], [0], [2**26 - 1]])
def test_a_bomb_behind_a_small_shape_never_goes_off(shape: list[int]) -> None:
    """WIRE-21"""
    packet = with_tensors([["x", "uint8", shape, "zstd", len(ZEROS), False]], ZEROS)
    with allocating_at_most(2**20):
        assert read(packet) is None


def test_the_largest_tensor_takes_what_it_takes_and_no_more() -> None:
    """WIRE-20"""
    packet = with_tensors([["x", "uint8", [2**26], "zstd", len(ZEROS), False]], ZEROS)
    with allocating_at_most(2**26 + 2**20):
        assert read(packet) is not None


def frame(content: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(content)


def lying_frame() -> bytes:
    """A frame that says 16 bytes and holds 200."""
    data = bytearray(frame(bytes(range(200))))
    assert data[5] == 200, "a single segment, its size in one byte"
    data[5] = 16
    return bytes(data)


NO_FRAMES = {
    "without a size": frame(bytes(16), write_content_size=False),
    "with another size": frame(bytes(17)),
    "which lies": lying_frame(),
    "cut off": frame(bytes(range(16)))[:-1],
    "followed by another": frame(bytes(16)) + frame(b""),
    "followed by a byte": frame(bytes(16)) + b"\0",
    "that may be skipped": b"\x50\x2a\x4d\x18\x10\0\0\0" + bytes(16),
    "empty": b"",
    "of no kind": bytes(16),
    "of another dictionary": struct.pack("<IBBB", 0xFD2FB528, 0x21, 7, 16) + bytes(16),
}


@pytest.mark.parametrize("data", NO_FRAMES.values(), ids=NO_FRAMES)
def test_a_zstd_frame_that_is_not_exactly_the_tensor_is_refused(data: bytes) -> None:
    """WIRE-21"""
    with pytest.raises(DecodeError):
        decode_bytes("zstd", data, 16)
    assert decode_bytes("zstd", frame(bytes(16)), 16) == bytes(16), "the next one is not harmed"


def test_raw_bytes_that_are_not_exactly_the_tensor_are_refused() -> None:
    """WIRE-21"""
    for size in (0, 15, 17):
        with pytest.raises(DecodeError):
            decode_bytes("raw", bytes(16), size)


@given(st.integers(0, 300), st.integers(0, 7), st.integers(0, 400))
def test_a_damaged_frame_is_refused_or_has_the_right_size(position: int, bit: int, size: int) -> None:
    """WIRE-21"""
    data = bytearray(encode_bytes("zstd", bytes(range(256)) + bytes(size)))
    data[position % len(data)] ^= 1 << bit
    with contextlib.suppress(DecodeError):
        assert len(decode_bytes("zstd", bytes(data), 256 + size)) == 256 + size


@pytest.mark.parametrize("value", [2, 128, 255])
def test_a_bool_is_nothing_but_0_or_1(value: int) -> None:
    """WIRE-19: numpy and onnxruntime take any other byte for a third value."""
    with pytest.raises(DecodeError, match="neither 0 nor 1"):
        unpack_tensor(Tensor("x", "bool", (2,), "raw", bytes([0, value])))
    assert unpack_tensor(Tensor("x", "bool", (2,), "raw", b"\0\1")).tolist() == [False, True]
    assert unpack_tensor(Tensor("x", "bool", (0,), "raw", b"")).dtype == np.bool_


DEEP = {
    "lists in lists": b"\x91" * 65_000,
    "maps in maps": b"\x81\xa1x" * 21_000,
    "long lists in long lists": b"\xdd\x00\x00\xff\xff" * 13_000,
    "allowed lists in allowed lists": b"\xdc\x01\x00" * 21_000,
    "long maps in long maps": b"\xdf\x00\x00\x7f\xff\xa1x" * 9_000,
    "a list of four thousand million": b"\xdd\xff\xff\xff\xff",
    "a text of four thousand million bytes": b"\xdb\xff\xff\xff\xff",
    "an extension of four thousand million bytes": b"\xc9\xff\xff\xff\xff\x05",
}


@pytest.mark.parametrize("head", DEEP.values(), ids=DEEP)
def test_a_deep_or_long_header_is_refused_for_little_memory(head: bytes) -> None:
    """WIRE-4, WIRE-12"""
    packet = seal(1, b"\x81\xa1x" + head, packed=True)
    with allocating_at_most(4 * 2**20), pytest.raises(DecodeError):
        decode(packet)


@pytest.mark.parametrize(
    "head",
    [
        msgpack.packb({"id": msgpack.Timestamp(1, 2)}),
        msgpack.packb({"id": msgpack.ExtType(1, b"")}),
        msgpack.packb({1: 2}),
        msgpack.packb([1]),
        msgpack.packb({}) + b"\0",
        b"\x81\xa1\xff\x01",
        b"\x81\x91\x01\x01",
        b"\xc1",
        b"",
        msgpack.packb({str(number): 0 for number in range(257)}),
    ],
)
def test_a_header_that_is_no_plain_map_is_refused(head: bytes) -> None:
    """WIRE-12"""
    for kind in range(1, 7):
        with pytest.raises(DecodeError):
            decode(seal(kind, head, packed=True))


def test_an_assembler_holds_what_has_arrived_not_what_was_announced() -> None:
    """WIRE-36"""
    prefix = struct.Struct("<4sBBHHHIIQ")
    assembler = Assembler()
    with allocating_at_most(2**18):
        for number in range(100):
            part = prefix.pack(b"SBpt", 1, 0, 1024, 0, 0, 0, 2**26, number) + b"x"
            assert assembler.feed(part, now=0.0) is None
    assert assembler.abandoned == 92


def test_an_assembler_never_holds_more_than_its_limit() -> None:
    """WIRE-36: parts that really arrive, of packets that never end."""
    prefix = struct.Struct("<4sBBHHHIIQ")
    assembler = Assembler()
    content = bytes(2**22)
    for step in range(60):
        number, index = step % 6, step // 6
        part = prefix.pack(b"SBpt", 1, 0, 16, index, 0, index * 2**22, 2**26, number) + content
        assembler.feed(part, now=0.0)
        assert assembler.held_bytes <= 2**27
    assert assembler.abandoned > 0
