"""Packets: what is written is what is read, and what cannot be read is not written."""

from __future__ import annotations

import dataclasses
import re
import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.packets import DTYPES, FRAME, PACKETS, REPLY_TO, SPENT, job, ramp
from tests.schemas.golden import GOLDEN
from tests.schemas.wire import PREFIX, seal, take_apart

from splitbus_schemas import _kinds, dtypes
from splitbus_schemas._sealed import SEALED_KINDS
from splitbus_schemas.codecs import CODECS, CODINGS, decode_bytes, encode_bytes
from splitbus_schemas.errors import DecodeError, PayloadTooLargeError
from splitbus_schemas.packet import Array, decode, encode, pack_tensor, unpack_tensor
from splitbus_schemas.packet_types import (
    BlobPiece,
    Echo,
    FrameId,
    Hop,
    Job,
    Packet,
    Probe,
    Refusal,
    Result,
    Sealed,
    Spent,
)

CONTRACT = GOLDEN.parents[1] / "README.md"

ids = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
whole = st.integers(0, 2**63 - 1)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
sentences = st.text(max_size=200)
codings = st.sampled_from(sorted(name for name, coding in CODINGS.items() if coding.picture is None))
arrays = hnp.arrays(
    st.sampled_from(DTYPES).map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3)
)
tensors = st.lists(st.builds(pack_tensor, sentences, arrays, codings, final=st.booleans()), max_size=4).map(tuple)
frames = st.builds(FrameId, ids, ids, whole)
hops = st.lists(st.builds(Hop, ids, hashes, codings), min_size=1, max_size=8).map(tuple)
spent = st.lists(st.builds(Spent, ids, whole, whole, whole, whole, whole, whole), max_size=9).map(tuple)


def reply_topics(node: str) -> st.SearchStrategy[str]:
    short = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True)
    return st.builds(lambda site, boot: f"splitbus/v1/{site}/reply/{node}/{boot}", short, short)


jobs = frames.flatmap(
    lambda frame: st.builds(
        Job, st.just(frame), hashes, ids, whole, whole, whole, reply_topics(frame.device), hops, tensors, spent
    )
)
probes = ids.flatmap(
    lambda node: st.builds(Probe, whole, st.just(node), reply_topics(node), st.integers(0, 2**25), st.binary())
)
pieces = st.builds(
    lambda sha, offset, data: BlobPiece(sha, offset, offset + len(data), data),
    hashes,
    st.integers(0, 2**33),
    st.binary(),
)
packets: st.SearchStrategy[Packet] = st.one_of(
    jobs,
    st.builds(Result, frames, ids, whole, whole, tensors, spent),
    st.builds(Refusal, frames, ids, whole, whole, ids, st.text(max_size=8), sentences, spent),
    probes,
    st.builds(Echo, whole, ids, whole, whole, whole, st.binary()),
    pieces,
)


@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)
def test_the_corpus_goes_there_and_back(packet: Packet) -> None:
    """WIRE-8"""
    assert decode(encode(packet)) == packet


@given(packets)
def test_any_packet_goes_there_and_back(packet: Packet) -> None:
    """WIRE-8, WIRE-11: every kind."""
    data = encode(packet)
    assert decode(data) == packet
    assert decode(bytearray(data)) == packet
    assert decode(memoryview(data)) == packet


@given(arrays, codings)
def test_any_array_goes_there_and_back(array: Array, coding: str) -> None:
    """WIRE-19, WIRE-22: all dtypes, scalars, empty arrays, and not-a-numbers bit by bit."""
    (tensor,) = typing.cast("Job", decode(encode(job((pack_tensor("x", array, coding),))))).tensors
    back = unpack_tensor(tensor)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert not back.flags.writeable


@pytest.mark.parametrize("array", [ramp("float32", (4, 6)).T, ramp("int32", (8, 8))[::2, ::-1]])
@pytest.mark.parametrize("coding", CODINGS)
def test_strides_are_honoured(array: Array, coding: str) -> None:
    """WIRE-19: C order on the wire, whatever order it had."""
    assert np.array_equal(unpack_tensor(pack_tensor("x", array, coding)), array)


def test_a_big_endian_array_is_turned() -> None:
    """WIRE-3, WIRE-19"""
    tensor = pack_tensor("x", np.array([1.0], ">f4"), "raw")
    assert bytes(tensor.data) == b"\x00\x00\x80\x3f"


def test_raw_tensors_share_the_packets_bytes() -> None:
    data = bytearray(encode(job((pack_tensor("x", np.zeros(4, np.uint8), "raw"),))))
    tensor = typing.cast("Job", decode(data)).tensors[0]
    data[-1] = 9
    assert unpack_tensor(tensor)[-1] == 9


def test_the_registries_are_complete() -> None:
    """WIRE-11, WIRE-19: every type of packet has a kind, every codec a known coding, every dtype is registered."""
    assert set(typing.get_args(Packet)) == {*_kinds.KINDS_BY_TYPE, Sealed}
    assert {number: kind.type for number, kind in SEALED_KINDS.items()} == {7: Job, 8: Result}
    assert [kind.number for kind in _kinds.KINDS] == [1, 2, 3, 4, 5, 6]
    assert {codec.coding for codec in CODECS.values()} <= set(CODINGS)
    assert set(dtypes.DTYPES) == set(DTYPES)
    assert {type(packet) for packet in PACKETS.values()} == set(typing.get_args(Packet))


def test_the_prefix_stands_byte_by_byte() -> None:
    """WIRE-8, WIRE-10"""
    data = encode(PACKETS["echo"])
    kind, header, body = take_apart(data)
    assert PREFIX.size == 24
    assert (kind, body) == (5, bytes(16))
    assert seal(kind, header, body) == data


@pytest.mark.parametrize("name", ["job", "result", "refusal", "probe", "echo", "blob"])
def test_a_header_has_the_keys_that_the_contract_lists(name: str) -> None:
    """WIRE-23"""
    kind, header, _ = take_apart(encode(PACKETS[name]))
    (row,) = re.findall(rf"^  \| {kind} {name} \| (.*) \| .* \|$", CONTRACT.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == set(header)


def test_an_unknown_key_and_an_appended_column_are_ignored() -> None:
    """WIRE-13: what a later version adds."""
    kind, header, body = take_apart(encode(PACKETS["job"]))
    header["traceparent"] = {"id": b"\x01", "flags": [1.5, None]}
    for row in [header["frame"], *header["route"], *header["tensors"], *header["spent"]]:
        row.append("later")
    assert decode(seal(kind, header, body)) == PACKETS["job"]


def test_a_long_explanation_is_cut_when_written() -> None:
    """WIRE-15: a refusal arrives, however much the runtime had to say."""
    for detail in ("ä" * 5000, "a" + "\N{SNOWMAN}" * 5000, "\udc80" * 3):
        packet = decode(encode(Refusal(FRAME, "p", 1, 0, "edge1", "run", detail)))
        assert isinstance(packet, Refusal)
        assert packet.detail
        assert len(packet.detail.encode()) <= 1024
        assert detail.encode("utf-8", "replace").startswith(packet.detail.encode())


TOO_LARGE = {
    "a tensor": lambda: pack_tensor("x", np.broadcast_to(np.uint8(0), (2**26 + 1,)), "zstd"),
    "a rank": lambda: pack_tensor("x", np.zeros((1,) * 9), "raw"),
    "a name": lambda: pack_tensor("ä" * 257, np.zeros(1), "raw"),
    "tensors": lambda: encode(job((pack_tensor("x", np.zeros(1), "raw"),) * 65)),
    "what tensors decode to": lambda: encode(job((pack_tensor("x", np.zeros(2**25 + 1, np.uint8), "zstd"),) * 2)),
    "a packet": lambda: encode(Probe(1, "cam1", REPLY_TO, 0, bytes(2**26))),
    "a route": lambda: encode(job((), route=(Hop("n", "0" * 64),) * 9)),
    "timings": lambda: encode(job((), spent=SPENT[:1] * 10)),
    "a header": lambda: encode(Refusal(FRAME, "p" * 70_000, 0, 0, "n", "run")),
}


@pytest.mark.parametrize("make", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_exceeds_a_limit_is_not_sent(make: typing.Callable[[], object]) -> None:
    """WIRE-4: nobody has to refuse what we send; the error knows both sizes."""
    with pytest.raises(PayloadTooLargeError) as caught:
        make()
    assert caught.value.size > caught.value.limit > 0


def test_the_largest_of_everything_passes() -> None:
    """WIRE-4: limits include their own value."""
    names = [f"{number:03}" + "n" * 300 for number in range(64)]
    some = tuple(pack_tensor(name, np.zeros((1,) * 8, np.uint8), "raw") for name in names)
    packet = job(some, route=(Hop("n" * 64, "0" * 64),) * 8, spent=SPENT[:1] * 9)
    assert decode(encode(packet)) == packet
    whole_packet = job((pack_tensor("x", np.zeros(2**26, np.uint8), "zstd"),))
    tensor = typing.cast("Job", decode(encode(whole_packet))).tensors[0]
    assert unpack_tensor(tensor).nbytes == 2**26


def test_an_unknown_coding_is_a_programs_mistake_here_and_a_peers_there() -> None:
    """WIRE-21"""
    with pytest.raises(KeyError):
        encode_bytes("lz4", b"")
    with pytest.raises(DecodeError, match="lz4"):
        decode_bytes("lz4", b"", 0)


def test_packets_are_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(FRAME, "seq", 2)  # noqa: B010 - mypy would forbid what is under test
    assert str(FRAME) == "cam1/k3x9/4711"
    assert SPENT[1].total_us == 2640
