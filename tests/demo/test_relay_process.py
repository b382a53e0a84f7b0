"""The relay in its own process does the same, and ends with its starter."""

import socket
import time

import pytest
from tests.demo.peer import REQUEST, Peer

from splitbus_demo.line import Link
from splitbus_demo.relay_process import RelayProcess
from splitbus_schemas.errors import SplitbusError

pytestmark = pytest.mark.clocked


def fetch(relay: RelayProcess, size: int) -> float:
    with socket.create_connection((relay.host, relay.port), timeout=5) as connection:
        started = time.perf_counter()
        connection.sendall(REQUEST.pack(0, size))
        with connection.makefile("rb") as stream:
            if len(stream.read(size)) < size:
                raise ConnectionResetError
        return time.perf_counter() - started


def test_rate_changes_and_cuts(peer: Peer) -> None:
    with RelayProcess(peer.address, Link(10, 10)) as relay:
        assert fetch(relay, 250_000) == pytest.approx(0.2, rel=0.15)
        relay.set(Link(10, 40))
        assert relay.link.down_mbit == 40
        assert fetch(relay, 250_000) == pytest.approx(0.05, abs=0.02)
        relay.cut("reset")
        with pytest.raises(ConnectionError):
            fetch(relay, 1)
        relay.restore()
        assert fetch(relay, 1) < 1
        assert relay.carried == (3 * REQUEST.size, 500_001)


def test_it_ends_with_its_starter(peer: Peer) -> None:
    relay = RelayProcess(peer.address, Link(10, 10))
    relay.close()
    relay.close()
    assert relay._process.poll() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((relay.host, relay.port))


def test_a_relay_that_died_is_named(peer: Peer) -> None:
    with RelayProcess(peer.address, Link(10, 10)) as relay:
        relay._process.kill()
        relay._process.wait()
        with pytest.raises(SplitbusError, match="relay has ended"):
            relay.restore()
