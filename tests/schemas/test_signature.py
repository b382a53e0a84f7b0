"""How a signature is attached to a document and taken off again; nothing here can sign."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.packets import MESSAGES

from splitbus_schemas.errors import ConfigError, PayloadTooLargeError, SignatureError
from splitbus_schemas.limits import MAX_JSON_BYTES
from splitbus_schemas.messages import Plan
from splitbus_schemas.signature import KEY_PREFIX, SLICE, attach, detach, read_key, signed_bytes, write_key

SIGNATURE = bytes(range(64))


@pytest.mark.parametrize("name", MESSAGES)
def test_a_signature_comes_off_as_it_went_on(name: str) -> None:
    """WIRE-46"""
    body = MESSAGES[name].to_json()
    assert detach("it", attach(body, SIGNATURE)) == (body, SIGNATURE)


def test_a_signed_plan_is_json_that_people_and_older_nodes_read() -> None:
    plan = MESSAGES["plan"]
    assert isinstance(plan, Plan)
    signed = attach(plan.to_json(), SIGNATURE)
    shown = json.loads(signed)
    assert list(shown)[-1] == "signature"
    assert {key: value for key, value in shown.items() if key != "signature"} == json.loads(plan.to_json())
    assert Plan.from_json(signed).model_copy(update={"signature": None}) == plan


@given(st.binary(max_size=300))
def test_bytes_without_a_signature_are_unsigned(data: bytes) -> None:
    with pytest.raises(SignatureError, match="is not signed") as caught:
        detach("it", data)
    assert caught.value.counter == "unsigned"


@pytest.mark.parametrize(
    "end",
    [
        b',"signature":""}',
        b',"signature":"' + b"A" * 86 + b'=="} ',
        b',"signature":"' + b"A" * 87 + b'="}',
        b',"signature": "' + b"A" * 86 + b'=="}',
        b',"signature":"' + b"-" * 86 + b'=="}',
        b',"signature":"' + b"A" * 86 + b'==","more":1}',
    ],
)
def test_only_the_one_form_at_the_end_counts(end: bytes) -> None:
    """WIRE-46, WIRE-47"""
    with pytest.raises(SignatureError, match="is not signed"):
        detach("it", b'{"v":1' + end)


def test_topics_are_signed_too() -> None:
    """WIRE-46: otherwise a camera's plan could be laid before another."""
    contexts = ["splitbus/v1/home/ctl/cam1/plan/m", "splitbus/v1/home/ctl/cam2/plan/m", SLICE]
    assert len({signed_bytes(context, b"{}") for context in contexts}) == len(contexts)


def test_sizes_are_limited_both_ways() -> None:
    with pytest.raises(PayloadTooLargeError):
        attach(b"{" + b" " * (MAX_JSON_BYTES - 2) + b"}", SIGNATURE)
    with pytest.raises(SignatureError, match="the limit is"):
        detach("it", b" " * (MAX_JSON_BYTES + 1))


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_written_and_read(key: bytes) -> None:
    assert read_key(write_key(key)) == key


@pytest.mark.parametrize("text", ["", "ed25519:", KEY_PREFIX + "AAAA", write_key(bytes(32))[8:], write_key(bytes(33))])
def test_what_is_no_key_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="is no public key: write ed25519:"):
        read_key(text)
