"""Connections that a router forgot, and what must not be taken for that."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.faults.nat import Nat
from tests.worker.rig import wait_for

from splitbus_runtime.liveness import ANSWER_S, DOUBTED_S, LIVELY_QUIET_S, QUIET_S
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.twins import look_after_each_other

pytestmark = pytest.mark.broker

Connect = Callable[[Broker | Nat], MqttBus]

SLACK_S = 0.6
"""For the machine, and for coming back."""


@pytest.fixture
def connect() -> Iterator[Connect]:
    buses: list[MqttBus] = []

    def open_bus(where: Broker | Nat) -> MqttBus:
        bus = MqttBus(where.host, where.port, client_id=f"half-{secrets.token_hex(4)}")
        buses.append(bus)
        bus.wait_connected(5)
        return bus

    yield open_bus
    for bus in buses:
        bus.close()


@pytest.fixture
def nat(broker: Broker) -> Iterator[Nat]:
    with Nat((broker.host, broker.port)) as router:
        yield router


def lost(*buses: MqttBus) -> bool:
    return all(bus.counters.get("disconnects") for bus in buses)


def test_a_quiet_connection_that_a_router_forgot_comes_back(nat: Nat, connect: Connect) -> None:
    bus = connect(nat)
    nat.forget()
    begun = time.monotonic()
    wait_for(lambda: bus.counters["connects"] == 2, "the second connection")
    assert time.monotonic() - begun <= QUIET_S + ANSWER_S + SLACK_S


def test_a_connection_whose_twin_died_is_asked_at_once(nat: Nat, broker: Broker, connect: Connect) -> None:
    """The dead twin answers no more, a living one does and stands."""
    one, dead, alive = connect(broker), connect(nat), connect(broker)
    look_after_each_other(one, dead)
    look_after_each_other(one, alive)
    nat.forget()
    begun = time.monotonic()
    one._client.socket().close()  # type: ignore[union-attr]  # what a cable that is pulled does, at one of them
    wait_for(lambda: lost(one, dead), "both connections to be lost")
    assert time.monotonic() - begun <= DOUBTED_S + SLACK_S
    assert "disconnects" not in alive.counters


@pytest.mark.parametrize("messages_s", [0, 20])
def test_a_broker_that_pauses_for_two_seconds_keeps_its_clients(
    broker_factory: BrokerFactory, connect: Connect, messages_s: int
) -> None:
    """As a cut of two seconds does, in which nothing is lost."""
    with broker_factory() as broker:
        bus, heard = connect(broker), list[bytes]()
        bus.subscribe("t", lambda delivery: heard.append(delivery.payload))
        for _ in range(2 * messages_s):
            bus.publish("t", b"x")
            time.sleep(1 / messages_s)
        broker.suspend()
        time.sleep(2.0)
        broker.resume()
        time.sleep(QUIET_S + LIVELY_QUIET_S)
        assert bus.connected
        assert bus.counters["connects"] == 1
        assert len(heard) == 2 * messages_s
