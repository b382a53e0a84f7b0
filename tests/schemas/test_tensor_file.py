"""Files of coded tensors: there and back, damaged, hostile, and as written down for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.packets import FILES
from tests.schemas.golden import GOLDEN, describe
from tests.schemas.wire import FILE_LENGTH, FILE_PREFIX, seal_file

from splitbus_schemas.errors import DecodeError, PayloadTooLargeError, VersionError
from splitbus_schemas.limits import MAX_TENSORS
from splitbus_schemas.tensor_file import Source, TensorFile, read_file, write_file

ROW = ["x", "uint8", [4], "raw", 4, False]
HEADER: dict[str, Any] = {"codec": "raw", "sources": [["x", "uint8", [4]]], "tensors": [ROW]}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_it_was_written(name: str) -> None:
    """WIRE-62: prefix, header and body."""
    data = write_file(FILES[name])
    assert read_file(data) == FILES[name]
    magic, version, zero, header, body, _ = FILE_PREFIX.unpack_from(data)
    assert (magic, version, zero) == (b"SBtf", 1, bytes(3))
    assert FILE_PREFIX.size + header + body == len(data)
    assert seal_file(data[20 : 20 + header], data[20 + header :]) == data
    assert FILE_LENGTH.unpack_from(data, 8) == (header,)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_past_is_read_as_written_down(name: str) -> None:
    """WIRE-62."""
    stored = (GOLDEN / f"file-{name}.sbp").read_bytes()
    facts = json.loads((GOLDEN / f"file-{name}.json").read_bytes())
    assert describe(read_file(stored)) == describe(FILES[name]) == facts
    if name == "raw":
        assert write_file(FILES[name]) == stored


@pytest.mark.parametrize("name", FILES)
def test_what_is_cut_off_or_changed_is_refused(name: str) -> None:
    """WIRE-62: lengths and checksum."""
    data = write_file(FILES[name])
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            read_file(data[:end])
        changed = bytearray(data)
        changed[end] ^= 0x20
        with pytest.raises(DecodeError):
            read_file(bytes(changed))
    with pytest.raises(DecodeError):
        read_file(data + b"\0")


def test_another_version_is_named() -> None:
    data = bytearray(write_file(FILES["raw"]))
    data[4] = 2
    with pytest.raises(VersionError, match="version 2"):
        read_file(bytes(data))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"codec": "q5"}, "codec 'q5'"),
        ({"codec": 7}, "codec is not"),
        ({"sources": [["x", "complex64", [4]]]}, "dtype 'complex64'"),
        ({"sources": [["x", "uint8"]]}, "no list of 3 values"),
        ({"sources": [["x", "uint8", [4]]] * 2}, "names must be there and differ"),
        ({"sources": [["", "uint8", [4]]]}, "names must be there and differ"),
        ({"sources": [["x", "uint8", [1] * 9]]}, "at most 8 sizes"),
        ({"sources": [["x", "uint8", [-1]]]}, "whole number"),
        ({"sources": [["x", "uint8", [4]]] * (MAX_TENSORS + 1)}, "at most 64 rows"),
        ({"tensors": [ROW, ROW]}, "beyond the packet"),
        ({"tensors": []}, "its tensors need 0"),
        ({"tensors": [["x", "uint8", [2**26, 2], "raw", 4, False]]}, "the limit is"),
    ],
)
def test_hostile_headers_are_refused_before_anything_is_allocated(change: dict[str, Any], why: str) -> None:
    """WIRE-62, WIRE-63."""
    assert read_file(seal_file(HEADER, b"abcd")).tensors[0].data == b"abcd"
    with pytest.raises(DecodeError, match=why):
        read_file(seal_file(HEADER | change, b"abcd"))


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_anything_is_read_or_refused(header: bytes, body: bytes) -> None:
    for data in (header, seal_file(header, body)):
        try:
            read_file(data)
        except DecodeError:
            continue


def test_more_than_a_file_holds_is_not_written() -> None:
    source = Source("x", "uint8", (1,))
    with pytest.raises(PayloadTooLargeError, match="sources"):
        write_file(TensorFile("raw", (source,) * (MAX_TENSORS + 1), ()))
