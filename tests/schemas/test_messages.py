"""Control messages: any bytes are a message or refused with one sentence."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.packets import MESSAGES
from tests.schemas.test_hostile_packets import places, replaced

from splitbus_schemas import messages as m
from splitbus_schemas.codecs import CODINGS
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

HOSTILE: Final[tuple[Any, ...]] = (
    None, True, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "A/b", "x" * 5000, "\0", "2", [], {}, [[]],
    {"a": {"a": "a"}}, [None], "0" * 64, -0.5, "Infinity", "@5000 digits", "@1e999", "@\\ud800",
)  # fmt: skip
RAW = {b'"@5000 digits"': b"9" * 5000, b'"@1e999"': b"1e999", b'"@\\\\ud800"': b'"\\ud800"'}
"""What json.dumps does not write."""


def read(kind: type[m.Message], data: bytes) -> m.Message | None:
    """The message, or None when it is refused; any other exception is the test's to fail on."""
    try:
        message = kind.from_json(data)
    except DecodeError:
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
    assert {kind for kind in m.Message.__subclasses__() if kind.__module__.startswith(m.__name__)} == kinds
    for topic in TOPICS:
        assert topic.message is None or type(MESSAGES[topic.name]) is topic.message


OPEN = {("counters",), ("ages_s",), ("routes",), ("failed",), ("objective",), ("limits",)}
"""Fields of any keys."""


@pytest.mark.parametrize("name", MESSAGES)
def test_unknown_fields_are_ignored_everywhere(name: str) -> None:
    """WIRE-42: a later version may add them."""
    document = DOCUMENTS[name]
    for path in places(DOCUMENTS[name]):
        value = at(document, path)
        if isinstance(value, dict) and path[-1:] not in OPEN:
            document = replaced(document, path, {**value, "added_later": [{"x": None}]})
    assert json.dumps(document).count("added_later") >= 1
    assert type(MESSAGES[name]).from_json(json.dumps(document).encode()) == MESSAGES[name]


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


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
            data = json.dumps(replaced(DOCUMENTS[name], path, value)).encode()
            for text, raw in RAW.items():
                data = data.replace(text, raw)
            refused += read(type(MESSAGES[name]), data) is None
    assert refused > len(paths) * len(HOSTILE) / 3


def test_a_complaint_is_a_sentence_however_long_the_field() -> None:
    """WIRE-2"""
    with pytest.raises(DecodeError) as caught:
        m.SliceState.from_json(json.dumps({**DOCUMENTS["slices"], "failed": {"x" * 9000: 1}}).encode())
    assert len(str(caught.value)) < 500


@given(kinds, anything)
def test_any_json_is_a_message_or_refused(kind: type[m.Message], value: Any) -> None:
    """WIRE-2"""
    read(kind, json.dumps(value).encode())


@given(names, st.data())
def test_any_damage_is_a_message_or_refused(name: str, data: st.DataObject) -> None:
    """WIRE-2, WIRE-40"""
    document = bytearray(MESSAGES[name].to_json())
    changes = st.lists(st.tuples(st.integers(0, len(document) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    for position, value in data.draw(changes):
        document[position] = value
    read(type(MESSAGES[name]), bytes(document))


@given(kinds, st.binary(max_size=100))
def test_random_bytes_are_refused(kind: type[m.Message], data: bytes) -> None:
    """WIRE-2, WIRE-40"""
    read(kind, data)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"v":' * 100_000, b'{"v": "' + b"1" * 100_000 + b'"}', b"9" * 100_000]
)
@pytest.mark.parametrize("kind", [m.Plan, m.Peers])
def test_deep_or_long_documents_are_refused(kind: type[m.Message], data: bytes) -> None:
    """WIRE-2, WIRE-4"""
    assert read(kind, data) is None


def test_documents_beyond_the_limit_are_neither_read_nor_written() -> None:
    """WIRE-4, WIRE-40"""
    with pytest.raises(DecodeError, match="the limit is 1048576"):
        m.Peers.from_json(b" " * (2**20 - 1) + b"{}")
    assert m.Peers.from_json(b" " * (2**20 - 2) + b"{}") == m.Peers()
    with pytest.raises(PayloadTooLargeError, match="Alert has"):
        m.Alert(node="cam1", what="x", reason="x" * 2**20).to_json()


REFUSED = {
    "infinite time": ("plan", ("predicted_ms",), 1e999, "predicted_ms"),
    "negative time": ("plan", ("steps", 0, "ms"), -1, r"steps\.0\.ms"),
    "an absurd time": ("plan", ("predicted_ms",), 1e10, "predicted_ms"),
    "an absurd epoch": ("plan", ("epoch",), 2**63, "epoch"),
    "nine stages": ("plan", ("routes", 0), [DOCUMENTS["plan"]["routes"][0][0]] * 9, r"routes\.0"),
    "a node that is a path": ("plan", ("head", "node"), "../etc", r"head\.node"),
    "a slice that is no hash": ("plan", ("routes", 0, 0, "slice"), "tail", r"routes\.0\.0\.slice"),
    "an unknown coding": ("plan", ("head", "coding"), "lz4", r"head\.coding"),
    "a negative counter": ("stats", ("counters", "jobs"), -1, r"counters\.jobs"),
    "no rate at all": ("link", ("up_mbit",), 0, "up_mbit"),
    "an infinite rate": ("link", ("up_mbit",), 1e999, "up_mbit"),
    "more than all lost": ("link", ("loss",), 1.01, "loss"),
    "an infinite age": ("link", ("age_s",), 1e999, "age_s"),
    "an unknown state": ("status", ("state",), "asleep", "state"),
    "a piece of no bytes": ("blob-get", ("length",), 0, "length"),
    "a piece that is too long": ("blob-get", ("length",), 2**20, "length"),
    "a piece to a control topic": ("blob-get", ("reply_to",), "splitbus/v1/home/ctl/cam1/plan/x", "reply_to"),
    "a weight of a petabyte": ("slice-manifest", ("weights", 0, "bytes"), 2**50, r"weights\.0\.bytes"),
    "a negative dimension": ("model", ("inputs", 0, "shape", 1), -3, r"inputs\.0\.shape\.1"),
}


@pytest.mark.parametrize(("name", "path", "value", "place"), REFUSED.values(), ids=REFUSED)
def test_a_hostile_field_is_refused_by_its_place(
    name: str, path: tuple[str | int, ...], value: Any, place: str
) -> None:
    """WIRE-44, WIRE-45"""
    data = json.dumps(replaced(DOCUMENTS[name], path, value)).encode()
    with pytest.raises(DecodeError, match=place):
        type(MESSAGES[name]).from_json(data)


def test_the_first_document_of_a_key_that_stands_twice_does_not_count() -> None:
    """WIRE-40: as in every JSON reader that people use."""
    assert m.Peers.from_json(b'{"peers": [{"node": "a", "tier": "edge"}], "peers": []}') == m.Peers()


def test_a_stage_may_have_every_coding() -> None:
    """WIRE-21"""
    for coding in CODINGS:
        assert m.PlanStage(node="edge1", tier="edge", coding=coding).coding == coding


def test_messages_are_values_and_are_checked_when_made() -> None:
    plan = MESSAGES["plan"]
    with pytest.raises(ValidationError):
        setattr(plan, "epoch", 3)  # noqa: B010 - mypy would forbid what is under test
    with pytest.raises(ValidationError):
        m.Peer(node="Edge 1", tier="edge")


def test_a_plan_without_head_or_route_is_local() -> None:
    plan, local = MESSAGES["plan"], MESSAGES["plan-local"]
    assert isinstance(plan, m.Plan)
    assert isinstance(local, m.Plan)
    assert not plan.is_local
    assert local.is_local
    assert plan.model_copy(update={"routes": []}).is_local


def test_health_says_whose_it_is_and_since_when() -> None:
    """WIRE-69"""
    health = MESSAGES["health"]
    assert isinstance(health, m.NodeHealth)
    document = DOCUMENTS["health"]
    assert {"node", "boot", "state", "since", "reasons"} <= set(document)
    for wrong in ({**document, "state": "fine"}, {**document, "ages_s": {"echo": -1}}, {**document, "boot": "B 1"}):
        with pytest.raises(DecodeError):
            m.NodeHealth.from_json(json.dumps(wrong).encode())


def test_what_can_be_rebuilt_is_left_out_where_nobody_measured_it() -> None:
    """WIRE-70"""
    plain = m.Candidate(label="x", cuts=[], nodes=["cam1"], predicted_ms=1.0)
    assert plain.rebuilt is None
    decision = MESSAGES["decision"]
    assert isinstance(decision, m.Decision)
    assert b"rebuilt" not in decision.to_json(), "golden vectors stay as they are"
    told = decision.model_copy(update={"chosen": plain.model_copy(update={"rebuilt": 0.42})}).to_json()
    assert m.Decision.from_json(told).chosen.rebuilt == 0.42
    for wrong in (b"1.5", b"-0.1"):
        with pytest.raises(DecodeError):
            m.Decision.from_json(told.replace(b"0.42", wrong))


def test_workers_that_a_device_leaves_alone_go_by_their_names() -> None:
    """WIRE-51"""
    document = {name: value for name, value in DOCUMENTS["stream"].items() if name != "avoided"}
    assert m.StreamStats.from_json(json.dumps(document).encode()).avoided == [], "older devices say nothing of it"
    named = {**document, "avoided": ["edge1", "cloud1"]}
    assert m.StreamStats.from_json(json.dumps(named).encode()).avoided == ["edge1", "cloud1"]
    with pytest.raises(DecodeError):
        m.StreamStats.from_json(json.dumps({**document, "avoided": ["no/name"]}).encode())


def test_a_workers_pace_is_left_out_while_it_is_well() -> None:
    """WIRE-71"""
    assert "pace" not in DOCUMENTS["status"], "golden vectors stay as they are"
    assert m.NodeStatus.from_json(json.dumps(DOCUMENTS["status"]).encode()).pace is None
    slow = {**DOCUMENTS["status"], "pace": 9.3}
    assert m.NodeStatus.from_json(json.dumps(slow).encode()).pace == 9.3
    for wrong in (0.5, -1, "slow", 1e30):
        with pytest.raises(DecodeError):
            m.NodeStatus.from_json(json.dumps({**slow, "pace": wrong}).encode())


def test_a_node_tells_that_its_disk_is_full_and_no_more_when_it_is_not() -> None:
    """WIRE-73"""
    full = m.SliceState(node="edge1", boot="b1", failed={"a" * 64: "no space left"}, full="no space left")
    assert m.SliceState.from_json(full.to_json()) == full
    assert b"full" not in m.SliceState(node="edge1", boot="b1").to_json()
