"""Packets from someone who means harm: they are read or refused by DecodeError, and cost no more than the limits."""

from __future__ import annotations

import copy
import itertools
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.packets import PACKETS, REPLY_TO
from tests.schemas.wire import PREFIX, read, seal, take_apart

from splitbus_schemas.errors import DecodeError, VersionError
from splitbus_schemas.packet import decode, encode

ENCODED = {name: encode(packet) for name, packet in PACKETS.items()}
names = st.sampled_from(sorted(ENCODED))

HOSTILE: Final[tuple[Any, ...]] = (
    None, True, False, -1, -(2**63), 2**63, 2**64 - 1, 2**40, 2**26 + 1, 0, 1.5, float("nan"), float("inf"), "", "a/b",
    "+", "#", "A", "\0", "x" * 5000, "é" * 600, b"", b"\xff" * 100, [], {}, [[]], [None] * 6, {"a": {}}, "zstd", "bool",
    "float128", "object", "splitbus/v1/home/ctl/cam2/plan/x", "splitbus/v1/home/reply/cam2/b", "0" * 64, "G" * 64,
    msgpack.ExtType(5, b"abc"), msgpack.Timestamp(1, 2), [2**26, 2**26, 2**26], [0, 2**26, 2**26], [-1], [1.0], [True],
    [1] * 9, [1] * 300,
)  # fmt: skip
"""Values that are too large, too deep, of the wrong type, or right for another field."""

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
)
anything = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where a value stands in a header."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from places(inner, (*path, key))


def replaced(header: Any, path: tuple[str | int, ...], change: Any) -> Any:
    """A copy of `header` with another value there; with nothing there when `change` is Ellipsis."""
    if not path:
        return change
    header = copy.deepcopy(header)
    parent = header
    for key in path[:-1]:
        parent = parent[key]
    if change is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = change
    return header


@pytest.mark.parametrize("name", ENCODED)
def test_a_packet_cut_off_anywhere_is_refused(name: str) -> None:
    """WIRE-9"""
    data = ENCODED[name]
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode(data[:end])
    with pytest.raises(DecodeError):
        decode(data + b"\0")


@pytest.mark.parametrize("name", [name for name in ENCODED if name != "probe-train"])
def test_every_single_flipped_bit_is_noticed(name: str) -> None:
    """WIRE-10"""
    data = bytearray(ENCODED[name])
    for position, bit in itertools.product(range(len(data)), range(8)):
        data[position] ^= 1 << bit
        with pytest.raises(DecodeError):
            decode(data)
        data[position] ^= 1 << bit


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    """WIRE-2"""
    with pytest.raises(DecodeError):
        decode(data)
    with pytest.raises(DecodeError):
        decode(b"SBus\x01" + data)


@given(st.integers(0, 255), st.binary(max_size=300), st.binary(max_size=50))
def test_random_bytes_as_a_header_behind_a_right_checksum(kind: int, header: bytes, body: bytes) -> None:
    """WIRE-2, WIRE-12: whatever msgpack makes of them."""
    read(seal(kind % 8, header, body, packed=True))


@given(st.integers(1, 6), anything, st.binary(max_size=50))
def test_random_values_as_a_header(kind: int, header: Any, body: bytes) -> None:
    """WIRE-2, WIRE-13"""
    assert read(seal(kind, header, body)) is None


@given(names, st.data())
def test_header_bytes_changed_behind_a_right_checksum(name: str, data: st.DataObject) -> None:
    """WIRE-2, WIRE-12"""
    packet = ENCODED[name]
    kind, header_bytes = PREFIX.unpack_from(packet)[2], PREFIX.unpack_from(packet)[4]
    header, body = bytearray(packet[24 : 24 + header_bytes]), packet[24 + header_bytes :]
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(header) - 1), st.integers(0, 255)), max_size=4)
    ):
        header[position] = value
    read(seal(kind, bytes(header), body, packed=True))
    read(seal(data.draw(st.integers(1, 6)), bytes(header), body, packed=True))


@pytest.mark.parametrize("name", [name for name in ENCODED if name not in {"job-dtypes", "probe-train"}])
def test_every_value_of_a_header_replaced_by_every_hostile_one(name: str) -> None:
    """WIRE-2, WIRE-13, WIRE-14, WIRE-15: read or refused, and nothing else, wherever it stands."""
    kind, header, body = take_apart(ENCODED[name])
    refused = 0
    for path in list(places(header)):
        for value in (*HOSTILE, *([...] if path else [])):
            refused += read(seal(kind, replaced(header, path, value), body)) is None
    assert refused > len(header) * len(HOSTILE) / 2


@pytest.mark.parametrize("name", ENCODED)
def test_a_missing_key_is_refused(name: str) -> None:
    """WIRE-13"""
    kind, header, body = take_apart(ENCODED[name])
    for key in header:
        with pytest.raises(DecodeError, match="missing"):
            decode(seal(kind, replaced(header, (key,), ...), body))


REFUSED: dict[str, tuple[str, tuple[str | int, ...], Any, str]] = {
    "a flag for a number": ("job", ("epoch",), True, "whole number"),
    "a float for a number": ("job", ("epoch",), 1.0, "whole number"),
    "a negative number": ("job", ("budget",), -1, "whole number"),
    "a number beyond 63 bits": ("job", ("epoch",), 2**63, "whole number"),
    "a number for a flag": ("job", ("tensors", 0, 5), 1, "true or false"),
    "an upper-case id": ("job", ("plan",), "P", "id"),
    "an id of 65 characters": ("job", ("plan",), "p" * 65, "id"),
    "an id with a level": ("job", ("frame", 0), "a/b", "id"),
    "a wildcard": ("refusal", ("node",), "+", "id"),
    "a short hash": ("job", ("model",), "0" * 63, "SHA-256"),
    "a long word": ("refusal", ("reason",), "x" * 33, "32 bytes"),
    "a long text": ("refusal", ("detail",), "x" * 1025, "1024 bytes"),
    "a long name": ("job", ("tensors", 0, 0), "ä" * 257, "512 bytes"),
    "a reply to a control topic": ("job", ("reply",), "splitbus/v1/home/ctl/cam1/plan/x", "reply topic of cam1"),
    "a reply to another device": ("job", ("reply",), REPLY_TO.replace("cam1", "cam2"), "reply topic of cam1"),
    "a reply of another version": ("job", ("reply",), REPLY_TO.replace("v1", "v2"), "reply topic of cam1"),
    "an echo to another node": ("probe", ("reply",), REPLY_TO.replace("cam1", "cam2"), "reply topic of cam1"),
    "an echo larger than a packet": ("probe", ("back",), 2**26, "33554432"),
    "no route": ("job", ("route",), [], "route is empty"),
    "a long route": ("job", ("route",), [["n", "0" * 64, "raw"]] * 9, "at most 8 rows"),
    "an unknown coding of a stage": ("job", ("route", 0, 2), "lz4", "lz4"),
    "many timings": ("job", ("spent",), [["n", 0, 0, 0, 0, 0, 0]] * 10, "at most 9 rows"),
    "a short row": ("job", ("frame",), ["cam1", "b"], "3 values"),
    "a map for a row": ("job", ("frame",), {"0": "cam1"}, "3 values"),
    "many tensors": ("job", ("tensors",), [["x", "int8", [0], "raw", 0, False]] * 65, "at most 64 rows"),
    "an unknown dtype": ("job", ("tensors", 0, 1), "object", "object"),
    "an unknown coding": ("job", ("tensors", 0, 3), "pickle", "pickle"),
    "nine dimensions": ("job", ("tensors", 0, 2), [1] * 9, "at most 8"),
    "a negative dimension": ("job", ("tensors", 0, 2), [-1], "whole number"),
    "a huge shape": ("job", ("tensors", 0, 2), [2**20, 2**20], "decode to"),
    "a huge shape without elements": ("job", ("tensors", 0, 2), [0, 2**26, 2**26], "decode to"),
    "a tensor beyond the body": ("job", ("tensors", 0, 4), 49, "beyond the packet"),
    "a body beyond the tensors": ("job", ("tensors", 0, 4), 47, "its tensors need"),
    "a piece beyond its blob": ("blob", ("total",), 65537, "beyond the blob"),
    "a blob of a petabyte": ("blob", ("total",), 2**50, "whole number"),
}


@pytest.mark.parametrize(("name", "path", "value", "complaint"), REFUSED.values(), ids=REFUSED)
def test_a_hostile_field_is_refused_by_name(name: str, path: tuple[str | int, ...], value: Any, complaint: str) -> None:
    """WIRE-14, WIRE-15, WIRE-16, WIRE-17, WIRE-18, WIRE-20, WIRE-24, WIRE-25, WIRE-27, WIRE-28"""
    kind, header, body = take_apart(ENCODED[name])
    with pytest.raises(DecodeError, match=complaint):
        decode(seal(kind, replaced(header, path, value), body))


def test_a_refusal_has_no_body() -> None:
    """WIRE-26"""
    kind, header, _ = take_apart(ENCODED["refusal"])
    with pytest.raises(DecodeError, match="none belong there"):
        decode(seal(kind, header, b"x"))


PREFIXES = {
    "another version": (4, 2, VersionError, "upgrade"),
    "version zero": (4, 0, VersionError, "upgrade"),
    "kind zero": (5, 0, DecodeError, "kind 0"),
    "an unknown kind": (5, 9, DecodeError, "kind 9"),
    "the first reserved field": (7, 1, DecodeError, "reserved"),
    "the second reserved field": (23, 1, DecodeError, "reserved"),
    "another magic": (3, 0, DecodeError, "begins with"),
    "a longer header": (9, 1, DecodeError, "its prefix says"),
    "a huge header": (10, 2, DecodeError, "the limit is 65536"),
    "a shorter body": (12, 15, DecodeError, "its prefix says"),
    "a huge body": (15, 255, DecodeError, "its prefix says"),
}


@pytest.mark.parametrize(("position", "value", "error", "complaint"), PREFIXES.values(), ids=PREFIXES)
def test_a_hostile_prefix_is_refused(position: int, value: int, error: type[DecodeError], complaint: str) -> None:
    """WIRE-1, WIRE-8, WIRE-9, WIRE-11, WIRE-12: though its checksum is right."""
    data = bytearray(ENCODED["echo"])
    data[position] = value
    data[16:20] = zlib.crc32(data[:16] + bytes(4) + data[20:]).to_bytes(4, "little")
    with pytest.raises(error, match=complaint):
        decode(data)


def test_packets_larger_than_the_limit_are_not_looked_at() -> None:
    """WIRE-4"""
    with pytest.raises(DecodeError, match="the limit is 67108864"):
        decode(memoryview(bytes(2**26 + 1)))
