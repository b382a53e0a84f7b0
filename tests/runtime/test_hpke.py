"""RFC 9180 as its own test vectors have it, and what a session is bound to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.hpke import Secret
from splitbus_schemas.errors import SealError

VECTOR = json.loads((Path(__file__).parent / "rfc9180_auth_x25519_chacha20.json").read_bytes())
SENDER, RECEIVER, STRANGER = Secret.generate(), Secret.generate(), Secret.generate()


def of(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def test_the_vectors_of_the_rfc() -> None:
    """RFC 9180, A.2.3: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, mode Auth."""
    sender, receiver = Secret.of(of("skSm")), Secret.of(of("skRm"))
    assert (sender.public, receiver.public) == (of("pkSm"), of("pkRm"))
    share, there = sender.send_to(receiver.public, of("info"), Secret.of(of("skEm")))
    assert share == of("enc")
    here = receiver.receive_from(sender.public, share, of("info"))
    assert len(VECTOR["encryptions"]) == 6
    for entry in VECTOR["encryptions"]:
        number, associated, sealed = entry["number"], bytes.fromhex(entry["aad"]), bytes.fromhex(entry["ct"])
        assert there.seal(number, associated, of("pt")) == sealed
        assert here.open(number, associated, sealed) == of("pt")


@given(st.binary(max_size=300), st.binary(max_size=50), st.integers(0, 2**63 - 1))
def test_what_is_sealed_is_opened_as_it_was(data: bytes, associated: bytes, number: int) -> None:
    share, there = SENDER.send_to(RECEIVER.public, b"info")
    sealed = there.seal(number, associated, data)
    assert len(sealed) == len(data) + 16
    assert RECEIVER.receive_from(SENDER.public, share, b"info").open(number, associated, sealed) == data


@pytest.mark.parametrize("wrong", ["receiver", "sender", "info", "number", "associated", "share"])
def test_whatever_differs_nothing_is_opened(wrong: str) -> None:
    share, there = SENDER.send_to(RECEIVER.public, b"info")
    sealed = there.seal(3, b"header", b"activation")
    receiver = STRANGER if wrong == "receiver" else RECEIVER
    sender = STRANGER if wrong == "sender" else SENDER
    share = STRANGER.public if wrong == "share" else share
    here = receiver.receive_from(sender.public, share, b"other" if wrong == "info" else b"info")
    with pytest.raises(SealError, match="not as its sender sealed it"):
        here.open(4 if wrong == "number" else 3, b"Header" if wrong == "associated" else b"header", sealed)


def test_the_receiver_cannot_be_made_to_agree_with_everybody() -> None:
    """A point of low order gives the same for every secret."""
    with pytest.raises(SealError, match="share of the key is none"):
        RECEIVER.receive_from(SENDER.public, bytes(32), b"info")


def test_every_session_has_a_key_of_its_own() -> None:
    one, other = (SENDER.send_to(RECEIVER.public, b"info") for _ in range(2))
    assert one[0] != other[0]
    assert one[1].seal(0, b"", b"same") != other[1].seal(0, b"", b"same")
