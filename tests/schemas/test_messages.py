"""Control messages: any bytes are a message or refused with one sentence."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.packets import MESSAGES, MODEL
from tests.schemas.test_hostile_packets import places, replaced

from splitbus_schemas import messages as m
from splitbus_schemas.errors import DecodeError, PayloadTooLargeError, VersionError
from splitbus_schemas.topics import TOPICS

DOCUMENTS: dict[str, dict[str, Any]] = {name: json.loads(message.to_json()) for name, message in MESSAGES.items()}
names = st.sampled_from(sorted(MESSAGES))
kinds = st.sampled_from(sorted({type(message) for message in MESSAGES.values()}, key=lambda kind: kind.__name__))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)

HOSTILE = (
    None, True, -1, 2**63, 10**5000, 1e308, float("nan"), float("inf"), "", "A/b", "x" * 5000, "\0", "2", [], {}, [[]],
    {"a": {"a": "a"}}, [None], "0" * 64, -0.5, "Infinity", 10**400,
)  # fmt: skip


def read(kind: type[m.Message], data: bytes) -> m.Message | None:
    """The message, or None when it is refused; any other exception is the test's to fail on."""
    try:
        message = kind.from_json(data)
    except DecodeError as error:
        assert len(str(error)) < 500
        return None
    assert kind.from_json(message.to_json()) == message, "what we accept, we can pass on"
    return message


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_goes_there_and_back_for_people_to_read(name: str) -> None:
    """WIRE-40, WIRE-41: JSON on one line, without fields that say nothing."""
    message = MESSAGES[name]
    data = message.to_json()
    assert type(message).from_json(data) == message
    assert b"\n" not in data
    assert None not in json.loads(data).values()


def test_every_message_is_in_the_corpus() -> None:
    """WIRE-40"""
    kinds = {type(message) for message in MESSAGES.values()}
    assert {kind.message for kind in TOPICS if kind.message} | {m.SliceManifest} == kinds
    assert set(m.Message.__subclasses__()) == kinds
    for topic in TOPICS:
        assert topic.message is None or type(MESSAGES[topic.name]) is topic.message


@pytest.mark.parametrize("name", MESSAGES)
def test_unknown_fields_are_ignored_everywhere(name: str) -> None:
    """WIRE-42: a later version may add them."""
    document = json.loads(json.dumps(DOCUMENTS[name]))
    inner = [document]
    while inner:
        value = inner.pop()
        inner += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        if isinstance(value, dict) and not value.keys() & {"cam1", "jobs", "answered"} and MODEL not in value:
            value["added_later"] = "x"
    kind = type(MESSAGES[name])
    if name == "slices":
        document["failed"].pop("added_later")
    assert kind.from_json(json.dumps(document).encode()) == MESSAGES[name]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_document_cut_off_anywhere_is_refused(name: str) -> None:
    """WIRE-2"""
    data = MESSAGES[name].to_json()
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            type(MESSAGES[name]).from_json(data[:end])


@pytest.mark.parametrize("name", MESSAGES)
def test_another_version_is_refused_before_anything_else(name: str) -> None:
    """WIRE-1, WIRE-43: though nothing else of it may be known, or all of it."""
    for data in (b'{"v": 2}', b'{"v": 2, "node": 7}', json.dumps({**DOCUMENTS[name], "v": 2}).encode()):
        with pytest.raises(VersionError, match="version 2, this program speaks 1: upgrade"):
            type(MESSAGES[name]).from_json(data)


@pytest.mark.parametrize("name", MESSAGES)
def test_every_value_replaced_by_every_hostile_one(name: str) -> None:
    """WIRE-2, WIRE-44: plans with absurd numbers, profiles of texts; read or refused, and nothing else."""
    refused = 0
    paths = [path for path in places(DOCUMENTS[name]) if path]
    for path in paths:
        for value in (*HOSTILE, ...):
            data = dumps(replaced(DOCUMENTS[name], path, value))
            refused += read(type(MESSAGES[name]), data) is None
    assert refused > len(paths) * len(HOSTILE) / 3


def dumps(value: Any) -> bytes:
    """JSON with numbers that json.dumps would not print."""
    digits = {number: "1" + "0" * size for number, size in ((10**5000, 5000), (10**400, 400))}
    encoder = json.JSONEncoder(default=str)
    if not any(number in list(_leaves(value)) for number in digits):
        return encoder.encode(value).encode()
    text = encoder.encode(_swap(value, digits))
    for digit in digits.values():
        text = text.replace(f'"{len(digit)} digits"', digit)
    return text.encode()


def _leaves(value: Any) -> typing.Iterator[Any]:
    match value:
        case dict():
            for inner in value.values():
                yield from _leaves(inner)
        case list():
            for inner in value:
                yield from _leaves(inner)
        case _:
            yield value


def _swap(value: Any, digits: dict[int, str]) -> Any:
    match value:
        case dict():
            return {key: _swap(inner, digits) for key, inner in value.items()}
        case list():
            return [_swap(inner, digits) for inner in value]
        case int() if value in digits:
            return f"{len(digits[value])} digits"
        case _:
            return value
