"""Messages as lines: everything of the corpus, and whatever else may arrive."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.packets import MESSAGES, MODEL, PACKETS, PART_NUMBER

from splitbus_cli.describe import Describer, Line
from splitbus_runtime.bus import Delivery
from splitbus_schemas.packet import encode
from splitbus_schemas.parts import split
from splitbus_schemas.topics import ALERT, ECHO, JOB, PIN, PLAN, REPLY, TOPICS, Topic

JOB_TOPIC = JOB.at("home", node="edge1", device="cam1")


def describe(topic: str, payload: bytes) -> Line:
    return Describer().describe(Delivery(topic, payload), 0.0)


@pytest.mark.parametrize("name", PACKETS)
def test_every_packet_has_a_line(name: str) -> None:
    packet = PACKETS[name]
    line = describe(JOB_TOPIC, encode(packet))
    assert line.kind == f"job/{type(packet).__name__.lower()}"
    assert "\n" not in str(line)
    assert json.loads(line.to_json())["bytes"] == len(encode(packet))


def test_a_job_in_full() -> None:
    line = describe(JOB_TOPIC, encode(PACKETS["job"]))
    assert line.text.startswith("frame cam1/k3x9/4711, plan p12 epoch 12, edge1[")
    for part in ("zstd] > cloud1[", "budget 188 ms", "spent cam1 1.89 ms", "x float32 1x2x2x3 raw 48 B"):
        assert part in line.text
    facts = line.facts
    assert [hop["node"] for hop in facts["route"]] == ["edge1", "cloud1"]
    assert facts["tensors"][0]["shape"] == (1, 2, 2, 3)
    assert facts["budget_ms"] == 187.5


def test_a_sealed_job_shows_all_but_its_tensors_bytes() -> None:
    line = describe(JOB_TOPIC, encode(PACKETS["sealed-job"]))
    assert line.text.startswith("sealed by cam1 as its 5, frame cam1/k3x9/4711, plan p12 epoch 12, edge1[")
    assert "x float32 1x2x2x3 raw 48 B" in line.text
    assert line.facts["sealed"]["era"] == "0123456789abcdef"


def test_a_refusal_says_why() -> None:
    line = describe(REPLY.at("home", node="cam1", boot="k3x9"), encode(PACKETS["refusal"]))
    assert "refused by edge1, slice: slice " in line.text
    assert line.facts["reason"] == "slice"


def test_parts_are_put_together() -> None:
    describer = Describer()
    parts = [bytes(part) for part in split(encode(PACKETS["job"]), number=PART_NUMBER, limit=200)]
    lines = [describer.describe(Delivery(JOB_TOPIC, part), 0.001 * index) for index, part in enumerate(parts)]
    assert [line.kind for line in lines[:-1]] == ["part"] * (len(parts) - 1)
    assert lines[-1].kind == "job/job"
    assert lines[-1].text.endswith(", in parts")
    assert lines[-1].facts["train_bytes"] > 0


@pytest.mark.parametrize("name", [name for name in MESSAGES if name != "slice-manifest"])  # that one is a blob
def test_every_control_message_has_a_line(name: str) -> None:
    message = MESSAGES[name]
    kind = next((kind for kind in TOPICS if kind.message is type(message)), None)
    assert kind is not None
    topic = kind.at("home", **dict.fromkeys(kind.fields, "n1"))
    line = describe(topic, message.to_json())
    assert line.kind == kind.name
    assert json.loads(line.to_json())["message"] == json.loads(message.to_json())


def test_control_text_is_compact() -> None:
    line = describe(ALERT.at("home", node="edge1"), MESSAGES["alert"].to_json())
    assert line.text.startswith('what=packet_damaged reason="packet does not')


def test_an_empty_retained_message_removes() -> None:
    assert describe(PIN.at("home", node="cam1", model=MODEL[:16]), b"").text == "removed"


def test_an_echo_is_text() -> None:
    assert describe(ECHO.at("home", node="edge1"), b"b7f2 12345").text == "b7f2 12345"


def test_what_breaks_the_contract_says_how() -> None:
    damaged = bytearray(encode(PACKETS["job"]))
    damaged[-1] ^= 1
    line = describe(JOB_TOPIC, bytes(damaged))
    assert line.kind == "broken"
    assert "does not match its checksum" in line.text
    assert describe(PLAN.at("home", node="cam1", model="m"), b'{"v": 9}').text.startswith("Plan has version 9")
    assert describe("homeassistant/light", b"on").kind == "not-splitbus"


@given(st.sampled_from(TOPICS), st.binary(max_size=200))
def test_garbage_gives_a_line(kind: Topic, payload: bytes) -> None:
    topic = kind.at("home", **dict.fromkeys(kind.fields, "n1"))
    line = describe(topic, payload)
    assert str(line).isprintable()
    assert json.loads(line.to_json())["topic"] == topic


@given(st.text(), st.binary(max_size=50))
def test_any_topic_gives_a_line(topic: str, payload: bytes) -> None:
    assert str(describe(topic, payload)).isprintable()


@given(st.data())
def test_a_damaged_packet_gives_a_line(data: st.DataObject) -> None:
    packet = bytearray(encode(PACKETS[data.draw(st.sampled_from(sorted(PACKETS)))]))
    packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    assert str(describe(JOB_TOPIC, bytes(packet))).isprintable()


def test_a_terminal_is_not_obeyed() -> None:
    alert = b'{"node": "edge1", "what": "x", "reason": "\\u001b[2Jgone"}'
    text = str(describe(ALERT.at("home", node="edge1"), alert))
    assert "\x1b" not in text
    assert "gone" in text
