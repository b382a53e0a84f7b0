"""Packets over a bus: whole, in parts, as trains; damaged ones reported and no further."""

from __future__ import annotations

import queue

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.packets import ramp

from splitbus_runtime.bus import Delivery, MemoryBroker
from splitbus_runtime.transport import CHUNK_BYTES, PacketPort, Parcel
from splitbus_schemas.errors import DecodeError, PayloadTooLargeError
from splitbus_schemas.packet import encode, pack_tensor, unpack_tensor
from splitbus_schemas.packet_types import BlobPiece, FrameId, Packet, Probe, Result

TOPIC = "splitbus/v1/t/reply/cam/b1"


class Ends:
    """Two ports on one broker, and what the second one got."""

    def __init__(self, limit: int = 16 * 2**20) -> None:
        broker = MemoryBroker(limit)
        self.payloads: list[Delivery] = []
        self.parcels: list[Parcel] = []
        self.refused: list[str] = []
        self.sender = PacketPort(broker.connect(), lambda _topic, _error: None)
        self.raw = broker.connect()
        receiver = PacketPort(broker.connect(), lambda _topic, error: self.refused.append(str(error)))
        receiver.receive("splitbus/v1/t/reply/cam/+", self.parcels.append)
        broker.connect().subscribe(TOPIC, self.payloads.append)


def result_of(size: int) -> Result:
    return Result(FrameId("cam", "b1", 1), "p1", 1, 1, (pack_tensor("y", ramp("uint8", (size,)), "raw"),))


def same(left: Packet, right: Packet) -> bool:
    return encode(left) == encode(right)


@given(st.integers(0, 60_000), st.integers(2_000, 70_000), st.booleans())
def test_any_size_under_any_limit_arrives_whole(size: int, limit: int, train: bool) -> None:
    ends = Ends(limit)
    sent = result_of(size)
    assert ends.sender.send(TOPIC, sent, train=train) == len(encode(sent))
    assert len(ends.parcels) == 1
    assert same(ends.parcels[0].packet, sent)
    assert ends.parcels[0].bytes == len(encode(sent))
    assert all(len(delivery.payload) <= limit for delivery in ends.payloads)
    assert ends.refused == []


def test_a_small_packet_is_one_message_even_as_a_train() -> None:
    ends = Ends()
    ends.sender.send(TOPIC, result_of(100), train=True)
    assert len(ends.payloads) == 1
    assert (ends.parcels[0].train_bytes, ends.parcels[0].train_s) == (0, 0.0)


def test_a_train_begins_with_a_small_part() -> None:
    ends = Ends()
    ends.sender.send(TOPIC, result_of(50_000), train=True)
    first, second = ends.payloads
    assert len(first.payload) < 512
    assert len(second.payload) > 49_000
    assert 49_000 < ends.parcels[0].train_bytes < 51_000
    assert ends.parcels[0].train_s >= 0


def test_large_packets_are_cut_for_pahos_sake() -> None:
    ends = Ends()
    ends.sender.send(TOPIC, result_of(3 * CHUNK_BYTES))
    assert len(ends.payloads) == 4
    assert max(len(delivery.payload) for delivery in ends.payloads) == CHUNK_BYTES


def test_user_properties_ride_on_the_first_part_only() -> None:
    ends = Ends()
    ends.sender.send(TOPIC, result_of(50_000), train=True, user=(("plan", "p1"),))
    assert [delivery.user for delivery in ends.payloads] == [(("plan", "p1"),), ()]


def test_packets_of_several_senders_may_interleave() -> None:
    ends = Ends(10_000)
    kept: list[bytes] = []
    other = MemoryBroker(10_000)
    port = PacketPort(other.connect(), lambda _topic, _error: None)
    other.connect().subscribe(TOPIC, lambda delivery: kept.append(delivery.payload))
    sizes = (25_000, 26_000)
    for size in sizes:
        port.send(TOPIC, result_of(size))
    half = len(kept) // 2
    for pair in zip(kept[:half], kept[half:], strict=True):
        for payload in pair:
            ends.raw.publish(TOPIC, payload)
    arrived = [unpack_tensor(p.packet.tensors[0]).size for p in ends.parcels if isinstance(p.packet, Result)]
    assert arrived == list(sizes)


@pytest.mark.parametrize("junk", [b"", b"junk", b"SBus" + bytes(20), b"SBpt" + bytes(20), bytes(100)])
def test_damage_is_reported_and_dropped(junk: bytes) -> None:
    ends = Ends()
    ends.raw.publish(TOPIC, junk)
    assert ends.parcels == []
    assert len(ends.refused) == 1
    ends.sender.send(TOPIC, result_of(10))
    assert len(ends.parcels) == 1


@given(st.binary(max_size=200))
def test_no_bytes_raise(junk: bytes) -> None:
    ends = Ends()
    ends.raw.publish(TOPIC, junk)
    assert len(ends.refused) + len(ends.parcels) <= 1


def test_retained_messages_are_none_of_ours() -> None:
    broker = MemoryBroker()
    broker.connect().publish(TOPIC, encode(result_of(4)), retain=True)
    parcels: list[Parcel] = []
    refused: queue.SimpleQueue[DecodeError] = queue.SimpleQueue()
    PacketPort(broker.connect(), lambda _topic, error: refused.put(error)).receive(TOPIC, parcels.append)
    assert parcels == []
    assert refused.empty()


def test_without_a_broker_nothing_is_sent() -> None:
    bus = MemoryBroker().connect()
    bus.connected = False
    assert PacketPort(bus, lambda _topic, _error: None).send(TOPIC, result_of(4)) == 0


def test_a_limit_that_no_part_fits_is_an_error_before_anything_is_sent() -> None:
    ends = Ends(30)
    with pytest.raises(PayloadTooLargeError):
        ends.sender.send(TOPIC, Probe(1, "cam", TOPIC, 0, bytes(50_000)))
    assert ends.payloads == []


def test_a_flood_of_topics_stays_bounded() -> None:
    broker = MemoryBroker(1000)
    port = PacketPort(broker.connect(), lambda _topic, _error: None)
    port.receive("splitbus/v1/t/reply/+/b1", lambda _parcel: None)
    sender = PacketPort(broker.connect(), lambda _topic, _error: None)
    for number in range(400):
        sender.send(f"splitbus/v1/t/reply/cam{number}/b1", BlobPiece("0" * 64, 0, 9, bytes(9)))
    assert len(port._assemblers) <= 256
