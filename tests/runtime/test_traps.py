"""What the broker sees of a connection of ours, where pitfalls lie: docs/pitfalls.md."""

from __future__ import annotations

import secrets
import socket
import time

import pytest
from tests.brokers import BrokerFactory
from tests.worker.rig import wait_for

from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas import topics

CLEAN_START = 0x02
SESSION_EXPIRY = 0x11
RECEIVE_MAXIMUM = 0x21


def connect_packet() -> bytes:
    """The first packet of a connection, as a server gets it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        bus = MqttBus("127.0.0.1", server.getsockname()[1], client_id="trap")
        try:
            server.settimeout(5)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(5)
                return connection.recv(4096)
        finally:
            bus.close()


def test_no_session_outlives_its_connection() -> None:
    """M1, M2, M4: what a broker keeps for a client that is gone is lost, parked, or blocked by what has expired."""
    packet = connect_packet()
    assert packet[0] == 0x10
    assert packet[2:8] == b"\x00\x04MQTT"
    flags, properties = packet[9], packet[13 : 13 + packet[12]]
    assert flags & CLEAN_START
    assert properties[0] == RECEIVE_MAXIMUM
    assert len(properties) == 3, "no session expiry: it ends with the connection"
    assert SESSION_EXPIRY not in properties[::3]


def test_nothing_is_shared() -> None:
    """M1 to M3, M7: every job has one worker's topic; no filter of ours begins with $share."""
    filters = [kind.at("home", **dict.fromkeys(kind.fields, "+")) for kind in topics.TOPICS]
    assert not [one for one in filters if one.startswith("$")]
    assert topics.JOB.at("home", node="edge1", device="+").startswith(topics.ROOT)


@pytest.mark.broker
def test_state_that_a_broker_refuses_for_its_size_makes_no_loop(broker_factory: BrokerFactory) -> None:
    """M6: above `message_size_limit` Mosquitto says PUBACK 0x95, which paho takes for the connection's end."""
    with broker_factory("message_size_limit 2000") as broker:
        bus = MqttBus(broker.host, broker.port, client_id=f"trap-{secrets.token_hex(3)}")
        try:
            bus.wait_connected(10)
            bus.publish("state/large", bytes(5000), qos=1, retain=True)
            bus.publish("state/small", b"here", qos=1, retain=True)
            time.sleep(3)
            wait_for(lambda: bus.connected, "the connection")
            assert (bus.counters["connects"], bus.counters["publish_refused"]) == (1, 1), bus.counters
        finally:
            bus.close()
