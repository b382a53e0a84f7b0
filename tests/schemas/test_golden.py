"""Vectors that every version of every program must agree on, for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.packets import MESSAGES, PACKETS, PARTS
from tests.schemas import golden
from tests.schemas.golden import GOLDEN, describe, is_deterministic, parts_of, vectors

from splitbus_schemas.packet import decode, encode
from splitbus_schemas.parts import Assembler


def test_every_entry_of_the_corpus_has_its_vectors_and_no_vector_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(vectors())


@pytest.mark.parametrize("name", PACKETS)
def test_a_packet_is_read_as_written_down(name: str) -> None:
    """WIRE-8, WIRE-13: bytes of the past are read with the meaning that they had."""
    stored = json.loads((GOLDEN / f"packet-{name}.json").read_bytes())
    assert describe(decode((GOLDEN / f"packet-{name}.bin").read_bytes())) == stored
    assert describe(PACKETS[name]) == stored


@pytest.mark.parametrize("name", [name for name, packet in PACKETS.items() if is_deterministic(packet)])
def test_a_packet_is_written_byte_by_byte_as_ever(name: str) -> None:
    """WIRE-8: the encoding is fixed where no compressor takes part."""
    assert encode(PACKETS[name]) == (GOLDEN / f"packet-{name}.bin").read_bytes()


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_written_and_put_together_as_ever(name: str) -> None:
    """WIRE-30: the layout of a part."""
    stored = (GOLDEN / f"parts-{name}.bin").read_bytes()
    facts = json.loads((GOLDEN / f"parts-{name}.json").read_bytes())
    assert b"".join(parts_of(name)) == stored
    assembler = Assembler()
    begin = 0
    arrivals = []
    for length in facts["lengths"]:
        arrivals.append(assembler.feed(stored[begin : begin + length], now=0.0))
        begin += length
    assert begin == len(stored)
    assert [arrival is None for arrival in arrivals] == [True] * (len(arrivals) - 1) + [False]
    assert arrivals[-1] is not None
    assert arrivals[-1].data == (GOLDEN / f"packet-{facts['packet']}.bin").read_bytes()


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_read_and_written_as_ever(name: str) -> None:
    """WIRE-40, WIRE-42: a message is the JSON that is written down here; what was added since is beside it."""
    stored = (GOLDEN / f"message-{name}.json").read_bytes()
    assert type(MESSAGES[name]).from_json(stored) == MESSAGES[name]
    assert includes(json.loads(MESSAGES[name].to_json()), json.loads(stored))


def includes(new: Any, old: Any) -> bool:
    """Whether everything of `old` stands in `new`, unchanged."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and includes(new[key], value) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(includes(*pair) for pair in zip(new, old, strict=True))
    return bool(new == old)


def test_fields_may_be_added_but_not_lost_or_changed() -> None:
    """WIRE-42"""
    assert includes({"a": [{"b": 1, "new": 2}]}, {"a": [{"b": 1}]})
    lost: tuple[Any, ...] = ({}, {"a": []}, {"a": [{"b": 2}]}, {"a": [{}]}, {"a": {"b": 1}})
    for changed in lost:
        assert not includes(changed, {"a": [{"b": 1}]})


def test_the_program_never_touches_a_vector_that_exists(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("golden")
    monkeypatch.setattr(golden, "GOLDEN", folder)
    (folder / "packet-job.bin").write_bytes(b"of an earlier version")
    golden.main()
    assert (folder / "packet-job.bin").read_bytes() == b"of an earlier version"
    assert {path.name for path in folder.iterdir()} == set(vectors())
