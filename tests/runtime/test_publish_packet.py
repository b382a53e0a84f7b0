"""Our reader of PUBLISH agrees with paho's on every message that paho can write, and no bytes surprise it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes  # noqa: TID251 - the reference
from paho.mqtt.properties import Properties  # noqa: TID251 - the reference

from splitbus_runtime.bus import Delivery
from splitbus_runtime.publish_packet import read_publish
from splitbus_schemas.errors import DecodeError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=30)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "PayloadFormatIndicator": st.integers(0, 1),
        "MessageExpiryInterval": st.integers(0, 2**32 - 1),
        "TopicAlias": st.integers(1, 2**16 - 1),
        "ResponseTopic": TEXT,
        "ContentType": TEXT,
        "CorrelationData": st.binary(max_size=30),
        "SubscriptionIdentifier": st.integers(1, 268_435_455),
        "UserProperty": st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5),
    },
)


def packet_of(topic: str, properties: dict[str, object], payload: bytes) -> bytes:
    packed: Properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    for name, value in properties.items():
        setattr(packed, name, value)
    name_bytes = topic.encode()
    header: bytes = packed.pack()  # type: ignore[no-untyped-call]  # paho leaves it untyped
    return len(name_bytes).to_bytes(2, "big") + name_bytes + header + payload


@given(TEXT, PROPERTIES, st.binary(max_size=300), st.booleans())
def test_it_reads_what_paho_writes(topic: str, properties: dict[str, object], payload: bytes, retain: bool) -> None:
    user = properties.get("UserProperty", [])
    assert isinstance(user, list)
    packet = packet_of(topic, properties, payload)
    for given_as in (packet, bytearray(packet)):
        assert read_publish(given_as, retain=retain) == Delivery(topic, payload, retain, tuple(user))


def test_many_properties_take_a_length_of_two_bytes() -> None:
    user = [("key", "v" * 100)] * 40
    packet = packet_of("a/b", {"UserProperty": user}, b"payload")
    assert read_publish(packet, retain=False) == Delivery("a/b", b"payload", user=tuple(user))


@given(TEXT, PROPERTIES, st.binary(max_size=20), st.data())
def test_a_packet_cut_off_before_its_payload_is_an_error(
    topic: str, properties: dict[str, object], payload: bytes, data: st.DataObject
) -> None:
    whole = packet_of(topic, properties, b"")
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError):
        read_publish(whole[:cut], retain=False)


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_else(junk: bytes) -> None:
    with contextlib.suppress(DecodeError):
        read_publish(junk, retain=False)


BAD = {
    "unknown property": b"\x00\x01a\x02\x7f\x00",
    "property beyond the others": b"\x00\x01a\x03\x02\x00\x00\x00\x00",
    "length of five bytes": b"\x00\x01a\x80\x80\x80\x80\x01",
    "topic that is no text": b"\x00\x01\xff\x00",
}


@pytest.mark.parametrize("case", BAD)
def test_damage_is_an_error(case: str) -> None:
    with pytest.raises(DecodeError):
        read_publish(BAD[case], retain=False)
