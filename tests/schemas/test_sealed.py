"""Sealed packets by the letter of the contract: what a reader in another language would have to do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from cryptography.exceptions import InvalidTag
from tests.packets import FRAME, PACKETS, PUBLIC_KEYS, SEAL_SECRETS, SEALED_JOB, SEALED_RESULT, SPENT, sealed
from tests.schemas.golden import GOLDEN
from tests.schemas.wire import seal, take_apart

from splitbus_schemas.errors import DecodeError, PayloadTooLargeError, SealError
from splitbus_schemas.limits import MAX_PACKET_BYTES
from splitbus_schemas.messages import KeyList
from splitbus_schemas.packet import decode, encode
from splitbus_schemas.packet_types import Job, Result, Seal, Sealed, Tensor
from splitbus_schemas.seal_keys import key_id, read_public
from splitbus_schemas.sealed import check_sender, seal_packet

WAYS = [
    ("sealed-job", 7, "cam1", "edge1", "0123456789abcdef", SEALED_JOB),
    ("sealed-result", 8, "edge1", "cam1", FRAME.boot, SEALED_RESULT),
]


@pytest.mark.parametrize(("name", "number", "sender", "receiver", "era", "expected"), WAYS, ids=["job", "result"])
def test_a_vector_is_opened_by_the_letter(
    name: str, number: int, sender: str, receiver: str, era: str, expected: Job | Result
) -> None:
    """WIRE-64, WIRE-65: with the parts of RFC 9180 alone, and none of our own reading."""
    stored = (GOLDEN / f"packet-{name}.bin").read_bytes()
    kind, header, body = take_apart(stored)
    assert kind == number
    by, key, told_era, share, sequence = header["seal"]
    assert (by, key, told_era) == (sender, hashlib.sha256(SEAL_SECRETS[sender].public).hexdigest()[:16], era)
    info = f"splitbus/v1 sealed\nhome\n{sender}\n{receiver}\n{era}".encode()
    context = SEAL_SECRETS[receiver].receive_from(SEAL_SECRETS[sender].public, share, info)
    plain = context.open(sequence, bytes([kind]) + stored[24 : -len(body)], body)
    assert plain == b"".join(bytes(tensor.data) for tensor in expected.tensors)
    assert len(body) == sum(row[4] for row in header["tensors"]) + 16


@pytest.mark.parametrize("change", ["site", "sender", "receiver", "era"])
def test_it_is_bound_to_site_nodes_and_era(change: str) -> None:
    """WIRE-65, WIRE-66: what was sealed for another is not opened."""
    names = {"site": "home", "sender": "cam1", "receiver": "edge1", "era": "0123456789abcdef"} | {change: "other"}
    stored = (GOLDEN / "packet-sealed-job.bin").read_bytes()
    _, header, body = take_apart(stored)
    info = "\n".join(("splitbus/v1 sealed", *names.values())).encode()
    context = SEAL_SECRETS["edge1"].receive_from(SEAL_SECRETS["cam1"].public, header["seal"][3], info)
    with pytest.raises((SealError, InvalidTag)):
        context.open(header["seal"][4], b"\x07" + stored[24 : -len(body)], body)


def test_a_sealed_packet_goes_there_and_back() -> None:
    """WIRE-64: and its bytes are what they were, which is what was sealed with the body."""
    for name, *_ in WAYS:
        data = encode(PACKETS[name])
        found = decode(data)
        assert found == PACKETS[name]
        assert encode(found) == data


HOSTILE: dict[str, tuple[str, Any]] = {
    "no row": ("seal", None),
    "a row too short": ("seal", ["cam1", "0" * 16, "e1", bytes(32)]),
    "a short share": ("seal", ["cam1", "0" * 16, "e1", bytes(31), 0]),
    "a share as text": ("seal", ["cam1", "0" * 16, "e1", "0" * 32, 0]),
    "a number below zero": ("seal", ["cam1", "0" * 16, "e1", bytes(32), -1]),
    "an era that is no id": ("seal", ["cam1", "0" * 16, "", bytes(32), 0]),
    "an answer that is no id": ("answer", "A B"),
    "no answer": ("answer", ""),
}


@pytest.mark.parametrize(("key", "value"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused(key: str, value: Any) -> None:
    """WIRE-64: before anything is opened."""
    kind, header, body = take_apart(encode(PACKETS["sealed-job"]))
    with pytest.raises(DecodeError):
        decode(seal(kind, header | {key: value}, body))


def test_lengths_that_do_not_fill_the_sealed_body_are_refused() -> None:
    """WIRE-64: so that nothing is decrypted for a packet that cannot be read."""
    kind, header, body = take_apart(encode(PACKETS["sealed-job"]))
    for size in (0, 15, len(body) - 1, len(body) + 1):
        with pytest.raises(DecodeError):
            decode(seal(kind, header, (body * 2)[:size]))


def test_what_would_not_fit_is_refused_before_it_is_sealed() -> None:
    """WIRE-64: the tag counts."""
    large = replace(SEALED_JOB, tensors=(Tensor("x", "uint8", (1,), "raw", bytes(MAX_PACKET_BYTES - 15)),))

    def never(_associated: bytes, _data: bytes | memoryview) -> bytes:
        raise AssertionError("it was sealed")

    with pytest.raises(PayloadTooLargeError, match="sealed packet"):
        seal_packet(large, Seal("cam1", "0" * 16, "e1", bytes(32), 0), never)


WORKER_SPENT = (*SPENT[:1], replace(SPENT[0], node="cam2"))


@pytest.mark.parametrize(
    ("packet", "sender", "is_worker", "accepted"),
    [
        (SEALED_JOB, "cam1", False, True),
        (SEALED_JOB, "cam1", True, True),
        (SEALED_JOB, "cam2", False, False),
        (SEALED_JOB, "edge1", True, False),
        (replace(SEALED_JOB, spent=SPENT), "edge1", True, True),
        (replace(SEALED_JOB, spent=SPENT), "edge1", False, False),
        (replace(SEALED_JOB, spent=()), "cam1", False, False),
        (SEALED_RESULT, "edge1", True, True),
        (SEALED_RESULT, "edge1", False, False),
        (SEALED_RESULT, "cam1", False, False),
        (replace(SEALED_RESULT, spent=()), "edge1", True, False),
        (replace(SEALED_JOB, spent=WORKER_SPENT), "cam2", False, False),
    ],
)
def test_who_may_send_what(packet: Job | Result, sender: str, is_worker: bool, accepted: bool) -> None:
    """WIRE-67"""
    if accepted:
        check_sender(packet, sender, is_worker=is_worker)
        return
    with pytest.raises(SealError) as raised:
        check_sender(packet, sender, is_worker=is_worker)
    assert raised.value.counter == "unopened"


def test_keys_and_their_ids() -> None:
    """WIRE-68: as in the list's own vector."""
    keys = KeyList.from_json((GOLDEN / "message-keys.json").read_bytes())
    assert [read_public(key) for key in keys.nodes[0].keys] == [bytes([1]) * 32]
    assert key_id(bytes([1]) * 32) == hashlib.sha256(bytes([1]) * 32).hexdigest()[:16]
    assert not keys.required
    for wrong in ("x25519:", "x25519:" + "A" * 40, "ed25519:" + "A" * 43 + "=", PUBLIC_KEYS[0] + "A"):
        nodes = [{"node": "cam1", "role": "device", "keys": [wrong]}]
        with pytest.raises(DecodeError):
            KeyList.from_json(json.dumps({"epoch": 1, "nodes": nodes}).encode())


def test_the_header_is_the_one_of_a_job_with_a_row_more() -> None:
    """WIRE-64: what a tool shows of a job it shows of a sealed one."""
    packet = sealed(SEALED_JOB, "cam1", "edge1", "e1")
    assert isinstance(packet, Sealed)
    header = msgpack.unpackb(packet.header)
    assert {key: value for key, value in header.items() if key != "seal"} == take_apart(encode(SEALED_JOB))[1]
