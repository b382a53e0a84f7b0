"""The bus over a real broker: what comes back after a restart, what is never sent twice, and nothing left running."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.worker.rig import wait_for

from splitbus_runtime.bus import Delivery, Will
from splitbus_runtime.mqtt import MAX_QUEUED_BYTES, MqttBus
from splitbus_schemas.errors import BusError, PayloadTooLargeError

pytestmark = pytest.mark.broker

Connect = Callable[..., MqttBus]


@pytest.fixture
def connect() -> Iterator[Connect]:
    buses: list[MqttBus] = []

    def open_bus(broker: Broker, name: str, *, wait: bool = True, **options: Any) -> MqttBus:
        bus = MqttBus(broker.host, broker.port, client_id=f"mqtt-test-{name}", **options)
        buses.append(bus)
        if wait:
            bus.wait_connected(10)
        return bus

    yield open_bus
    for bus in buses:
        bus.close()


class Inbox(queue.SimpleQueue[Delivery]):
    def payloads(self, count: int) -> list[bytes]:
        return [self.get(timeout=10).payload for _ in range(count)]


def test_a_message_arrives_with_its_properties(broker: Broker, connect: Connect) -> None:
    inbox = Inbox()
    connect(broker, "a").subscribe("m1/+", inbox.put)
    time.sleep(0.05)
    assert connect(broker, "b").publish("m1/x", b"hello", user=(("plan", "p1"), ("k", "v")), expiry_s=5)
    delivery = inbox.get(timeout=5)
    assert (delivery.topic, delivery.payload, delivery.retain) == ("m1/x", b"hello", False)
    assert delivery.user == (("plan", "p1"), ("k", "v"))


def test_all_handlers_of_a_topic_get_it(broker: Broker, connect: Connect) -> None:
    bus, exact, wild = connect(broker, "a"), Inbox(), Inbox()
    bus.subscribe("m2/+", wild.put)
    bus.subscribe("m2/x", exact.put)
    time.sleep(0.1)
    bus.publish("m2/x", b"1")
    assert exact.payloads(1) == wild.payloads(1) == [b"1"]
    bus.unsubscribe("m2/x")
    time.sleep(0.1)
    while not wild.empty():
        wild.get()
    bus.publish("m2/x", b"2")
    assert wild.payloads(1) == [b"2"]
    assert exact.empty() or exact.payloads(1) == [b"1"]


def test_subscriptions_made_at_any_moment_of_connecting_hold(broker: Broker, connect: Connect) -> None:
    for attempt in range(30):
        bus, inbox = connect(broker, f"s{attempt}", wait=False), Inbox()
        bus.subscribe(f"m3/{attempt}/first", inbox.put)
        time.sleep(attempt * 0.0003)
        bus.subscribe(f"m3/{attempt}/second", inbox.put)
        bus.wait_connected(10)
        time.sleep(0.02)
        bus.publish(f"m3/{attempt}/first", b"1")
        bus.publish(f"m3/{attempt}/second", b"2")
        assert inbox.payloads(2) == [b"1", b"2"]
        bus.close()


def test_after_a_restart_subscriptions_and_retained_state_are_back(
    broker_factory: BrokerFactory, connect: Connect
) -> None:
    with broker_factory() as broker:
        inbox, changes = Inbox(), list[bool]()
        bus = connect(broker, "a")
        bus.subscribe("live/#", inbox.put, qos=1)
        bus.watch(changes.append)
        bus.publish("state/a", b"old", qos=1, retain=True)
        bus.publish("state/a", b"ready", qos=1, retain=True)
        bus.publish("state/gone", b"x", qos=1, retain=True)
        bus.publish("state/gone", b"", qos=1, retain=True)
        broker.kill()
        wait_for(lambda: not bus.connected, "the loss")
        assert not bus.publish("live/lost", b"0", qos=1), "what cannot be sent now is not sent later"
        bus.publish("state/b", b"while away", qos=1, retain=True)
        broker.start()
        wait_for(lambda: bus.connected, "the return")
        states: dict[str, bytes] = {}
        other = connect(broker, "b")
        other.subscribe("state/+", lambda delivery: states.update({delivery.topic: delivery.payload}))
        wait_for(lambda: len(states) == 2, "the retained state")
        assert states == {"state/a": b"ready", "state/b": b"while away"}
        other.publish("live/x", b"1")
        assert inbox.payloads(1) == [b"1"]
        wait_for(lambda: changes == [True, False, True], "the watcher's calls")
        assert bus.counters["disconnects"] == 1


def test_an_oversize_message_is_refused_here_and_the_connection_stands(
    broker_factory: BrokerFactory, connect: Connect
) -> None:
    with broker_factory("max_packet_size 20000") as broker:
        bus, inbox = connect(broker, "a"), Inbox()
        bus.subscribe("x/+", inbox.put)
        assert bus.max_packet_bytes < 20_000
        for qos in (0, 1):
            with pytest.raises(PayloadTooLargeError, match="message to x/y has 30000 bytes"):
                bus.publish("x/y", bytes(30_000), qos=qos)
        bus.publish("x/y", bytes(bus.max_packet_bytes), qos=1)
        assert inbox.payloads(1) == [bytes(bus.max_packet_bytes)]
        assert bus.counters.get("disconnects", 0) == 0


def test_retained_state_that_is_too_large_for_a_later_broker_makes_no_loop(
    broker_factory: BrokerFactory, connect: Connect
) -> None:
    with broker_factory("max_packet_size 20000") as broker:
        bus = connect(broker, "a", wait=False)
        bus.publish("state/large", bytes(100_000), qos=1, retain=True)  # nothing is known of the limit yet
        bus.publish("state/small", b"here", qos=1, retain=True)
        bus.wait_connected(10)
        inbox = Inbox()
        bus.subscribe("state/+", inbox.put)
        assert inbox.payloads(1) == [b"here"]
        time.sleep(0.5)
        assert bus.connected
        assert bus.counters["connects"] == 1
        assert bus.counters["too_large"] == 1


def test_unacknowledged_messages_are_not_sent_again(broker_factory: BrokerFactory, connect: Connect) -> None:
    with broker_factory() as broker:
        bus = connect(broker, "a")
        broker.suspend()
        for number in range(5):
            bus.publish("once/x", b"%d" % number, qos=1)
        broker.kill()
        broker.start()
        inbox = Inbox()
        connect(broker, "b").subscribe("once/+", inbox.put)
        wait_for(lambda: bus.connected, "the return")
        bus.publish("once/x", b"new", qos=1)
        assert inbox.payloads(1) == [b"new"]


def test_a_brokers_small_receive_maximum_is_kept(broker_factory: BrokerFactory, connect: Connect) -> None:
    with broker_factory("max_inflight_messages 3") as broker:
        bus, inbox = connect(broker, "a"), Inbox()
        connect(broker, "b").subscribe("r/x", inbox.put, qos=1)
        time.sleep(0.05)
        for number in range(200):
            assert bus.publish("r/x", b"%d" % number, qos=1)
        assert inbox.payloads(200) == [b"%d" % number for number in range(200)]
        assert bus.counters.get("disconnects", 0) == 0
        assert "Receive Maximum" not in broker.log()


def test_a_wrong_password_says_what_to_check(broker_factory: BrokerFactory, connect: Connect) -> None:
    with broker_factory(users={"cam": "right"}) as broker:
        assert connect(broker, "ok", username="cam", password="right").connected  # noqa: S106 - a test's
        bus = connect(broker, "a", wait=False, username="cam", password="wrong")  # noqa: S106 - a test's
        wait_for(lambda: bus.problem, "the refusal")
        with pytest.raises(BusError, match=r"refused: Not authorized: check username, password and ACL"):
            bus.wait_connected(0.1)


def test_no_broker_says_so(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    bus = MqttBus("127.0.0.1", port, client_id="nobody")
    try:
        with pytest.raises(BusError, match=rf"broker at 127.0.0.1:{port}: cannot connect: .*refused"):
            bus.wait_connected(0.5)
        assert not bus.publish("a/b", b"x")
    finally:
        bus.close()


def test_something_that_is_no_broker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitbus_runtime.mqtt.CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        bus = MqttBus("127.0.0.1", server.getsockname()[1], client_id="lonely")
        try:
            wait_for(lambda: "is this an MQTT 5 broker?" in bus.problem, "giving up")
        finally:
            bus.close()


def test_a_handlers_exception_is_counted_and_ends_nothing(
    broker: Broker, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    bus, inbox = connect(broker, "a"), Inbox()

    def fail(_delivery: Delivery) -> None:
        raise RuntimeError("on purpose")

    bus.subscribe("h/bad", fail)
    bus.subscribe("h/good", inbox.put)
    time.sleep(0.05)
    bus.publish("h/bad", b"x")
    bus.publish("h/good", b"y")
    assert inbox.payloads(1) == [b"y"]
    assert bus.counters["handler_errors"] == 1
    assert "h/bad" in caplog.text


def test_many_threads_may_publish(broker: Broker, connect: Connect) -> None:
    bus, inbox = connect(broker, "a"), Inbox()
    connect(broker, "b").subscribe("p/+", inbox.put)
    time.sleep(0.05)
    payload = bytes(50_000)

    def send(number: int) -> None:
        for turn in range(40):
            assert bus.publish(f"p/{number}", b"%d " % turn + payload, qos=number % 2)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    seen: dict[str, list[int]] = {}
    for _ in range(8 * 40):
        delivery = inbox.get(timeout=10)
        seen.setdefault(delivery.topic, []).append(int(delivery.payload.split()[0]))
    assert all(turns == list(range(40)) for turns in seen.values()), "in order for each sender"


def test_a_handler_may_publish(broker: Broker, connect: Connect) -> None:
    bus, inbox = connect(broker, "a"), Inbox()

    def answer(delivery: Delivery) -> None:
        bus.publish("q/answer", delivery.payload * 2)

    bus.subscribe("q/ask", answer)
    bus.subscribe("q/answer", inbox.put)
    time.sleep(0.05)
    bus.publish("q/ask", bytes(500_000))
    assert inbox.payloads(1) == [bytes(1_000_000)]


def test_a_stuck_broker_fills_no_memory(broker_factory: BrokerFactory, connect: Connect) -> None:
    with broker_factory() as broker:
        bus = connect(broker, "a")
        broker.suspend()
        size = 500_000
        sent = sum(bus.publish("x/y", bytes(size)) for _ in range(120))
        assert sent <= MAX_QUEUED_BYTES / size + 2
        assert bus.counters["send_queue_full"] == 120 - sent
        broker.resume()


def test_a_will_is_published_for_a_lost_peer_and_not_for_one_that_left(broker: Broker, connect: Connect) -> None:
    inbox = Inbox()
    connect(broker, "a").subscribe("will/+", inbox.put)
    time.sleep(0.05)
    leaver = connect(broker, "leaver", will=Will("will/leaver", b"lost"))
    leaver.close()
    lost = connect(broker, "lost", will=Will("will/lost", b"lost"))
    client: Any = lost._client
    client.socket().shutdown(socket.SHUT_RDWR)
    delivery = inbox.get(timeout=5)
    assert (delivery.topic, delivery.payload) == ("will/lost", b"lost")
    assert inbox.empty()


def test_last_words_are_heard_and_no_will_follows(broker: Broker, connect: Connect) -> None:
    """Also when the broker is just handing us what we said last: unread bytes at close would reset the connection."""
    inbox = Inbox()
    connect(broker, "a").subscribe("bye/+", inbox.put, qos=1)
    time.sleep(0.05)
    for round_number in range(40):
        topic = f"bye/{round_number}"
        leaver = connect(broker, "leaver", will=Will(topic, b"lost"))
        leaver.subscribe("bye/+", lambda _: None, qos=1)
        leaver.publish(topic, b"stopping", qos=1, retain=True)
        leaver.close()
    assert inbox.payloads(40) == [b"stopping"] * 40
    time.sleep(0.1)
    assert inbox.empty()


def test_two_programs_with_one_id_are_told(broker: Broker, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    connect(broker, "twin")
    connect(broker, "twin", wait=False)
    wait_for(lambda: "does another program use" in caplog.text, "the warning")


@pytest.mark.parametrize("moment", ["connected", "connecting", "refused"])
def test_close_leaves_no_thread(broker: Broker, moment: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    bus = MqttBus("127.0.0.1", dead if moment == "refused" else broker.port, client_id="mqtt-test-closing")
    if moment == "connected":
        bus.wait_connected(10)
    began = time.monotonic()
    bus.close()
    assert time.monotonic() - began < 2
    assert not any(thread.name == "splitbus-bus-mqtt-test-closing" for thread in threading.enumerate())
    bus.close()
    assert not bus.publish("a/b", b"x")


def test_a_watchers_exception_ends_nothing(
    broker_factory: BrokerFactory, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with broker_factory() as broker:
        broker.kill()
        bus = connect(broker, "a", wait=False)

        def fail(connected: bool) -> None:
            if connected:
                raise RuntimeError("on purpose")

        seen: list[bool] = []
        bus.watch(fail)
        bus.watch(seen.append)
        broker.start()
        wait_for(lambda: True in seen, "the second watcher's call")
        assert bus.connected
        assert bus.counters["handler_errors"] == 1
        assert "a watcher of the connection failed" in caplog.text


def test_what_is_not_to_be_kept_is_not_said_again(broker_factory: BrokerFactory, connect: Connect) -> None:
    """After a restart another may have the say."""
    with broker_factory() as broker:
        bus = connect(broker, "keeper")
        assert bus.publish("m9/kept", b"1", qos=1, retain=True)
        assert bus.publish("m9/once", b"2", qos=1, retain=True, keep=False)
        broker.restart()
        wait_for(lambda: bus.counters.get("connects", 0) == 2, "it is back")
        inbox = Inbox()
        connect(broker, "reader").subscribe("m9/#", inbox.put, qos=1)
        assert inbox.get(timeout=5).payload == b"1"
        bus.publish("m9/end", b"", qos=1)
        assert inbox.get(timeout=5).topic == "m9/end"
