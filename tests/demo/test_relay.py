"""The relay measured as a link would be: rate, delay, back-pressure, cuts, and changes under way."""

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from tests.demo.peer import REQUEST, Peer

from splitbus_demo.line import Link
from splitbus_demo.relay import Relay

pytestmark = pytest.mark.clocked

NOISE = 0.006
"""Seconds that a busy machine may add to one exchange."""


@contextmanager
def connected(relay: Relay) -> Iterator[socket.socket]:
    with socket.create_connection((relay.host, relay.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange(connection, 1, 1)  # so that the upstream connection stands
        yield connection


def exchange(connection: socket.socket, up: int, down: int) -> float:
    started = time.perf_counter()
    connection.sendall(REQUEST.pack(up, down) + bytes(up))
    got = 0
    while got < down:
        received = len(connection.recv(65536))
        assert received, "the connection ended early"
        got += received
    return time.perf_counter() - started


def seconds(size: int, mbit: float) -> float:
    return size * 8 / mbit / 1e6


@pytest.mark.parametrize(
    ("mbit", "size"), [(1, 20_000), (5, 20_000), (20, 20_000), (20, 125_000), (50, 1_000_000), (200, 4_000_000)]
)
@pytest.mark.parametrize("upwards", [True, False])
def test_a_transfer_takes_what_the_rate_says(peer: Peer, mbit: float, size: int, *, upwards: bool) -> None:
    fast = 1000.0
    link = Link(mbit, fast) if upwards else Link(fast, mbit)
    up, down = (size, 1) if upwards else (1, size)
    with Relay(peer.address, link) as relay, connected(relay) as connection:
        took = [exchange(connection, up, down) for _ in range(3)]
    assert min(took) > 0.97 * seconds(size, mbit) - 0.002
    assert min(took) < 1.05 * seconds(size, mbit) + NOISE


@pytest.mark.parametrize("delay_ms", [0, 5, 40])
def test_the_delay_is_added_both_ways(peer: Peer, delay_ms: float) -> None:
    with Relay(peer.address, Link(100, 100, delay_ms)) as relay, connected(relay) as connection:
        took = [exchange(connection, 1, 1) for _ in range(9)]
    assert min(took) >= 2 * delay_ms / 1e3
    assert statistics.median(took) < 2 * delay_ms / 1e3 + NOISE


def test_delay_and_rate_add_up_and_the_pipe_stays_full(peer: Peer) -> None:
    """One megabyte over a delay far longer than the backlog: a window of one backlog would take twelve seconds."""
    with Relay(peer.address, Link(20, 20, 150)) as relay, connected(relay) as connection:
        took = exchange(connection, 1_000_000, 1)
    assert 0.7 < took < 0.7 * 1.05 + NOISE


def test_connections_share_the_line(peer: Peer) -> None:
    with (
        Relay(peer.address, Link(20, 20)) as relay,
        connected(relay) as one,
        connected(relay) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        rounds = [[*pool.map(lambda connection: exchange(connection, 250_000, 1), (one, two))] for _ in range(3)]
    took = min(rounds, key=max)
    assert max(took) == pytest.approx(0.2, rel=0.1)
    assert min(took) > 0.15, "one of them took the other's share"


def test_a_new_rate_holds_within_a_transfer(peer: Peer) -> None:
    with Relay(peer.address, Link(4, 4)) as relay, connected(relay) as connection:
        change = threading.Timer(0.3, relay.set, [Link(40, 40)])
        change.start()
        took = exchange(connection, 500_000, 1)
        change.join()
        assert relay.link == Link(40, 40)
    assert 0.3 + seconds(500_000, 40) * 0.6 < took < 0.3 + seconds(500_000, 40) + 0.1


def test_the_sender_feels_the_line(peer: Peer) -> None:
    with Relay(peer.address, Link(2, 2)) as relay, connected(relay) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        connection.settimeout(0)
        taken, end = 0, time.perf_counter() + 0.5
        connection.send(REQUEST.pack(10_000_000, 1))
        while time.perf_counter() < end:
            try:
                taken += connection.send(bytes(4096))
            except BlockingIOError:
                time.sleep(0.002)
        carried, _ = relay.carried
    assert carried < 0.5 * 2e6 / 8 + 64 * 1024
    assert taken - carried < 256 * 1024, "the kernel's buffers hide the line"


def test_a_target_that_does_not_read_stops_its_sender() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        with Relay(server.getsockname(), Link(400, 400)) as relay, socket.socket() as connection:
            connection.connect((relay.host, relay.port))
            silent, _ = server.accept()
            connection.settimeout(0.3)
            with silent, pytest.raises(TimeoutError):
                connection.sendall(bytes(50_000_000))
            assert relay.carried[0] < 1_000_000


def test_a_reset_cut_breaks_connections_and_refuses_new_ones(peer: Peer) -> None:
    with Relay(peer.address, Link(10, 10, 5)) as relay:
        with connected(relay) as connection:
            relay.cut("reset")
            with pytest.raises(ConnectionError):
                exchange(connection, 1, 1)
        with pytest.raises((ConnectionError, AssertionError)), connected(relay):
            pass
        relay.restore()
        with connected(relay) as connection:
            assert exchange(connection, 1, 1) < 1


def test_a_black_hole_is_silent_and_nothing_is_lost_when_it_ends(peer: Peer) -> None:
    with Relay(peer.address, Link(10, 10, 5)) as relay, connected(relay) as connection:
        relay.cut("blackhole")
        connection.sendall(REQUEST.pack(1000, 500) + bytes(1000))
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        with socket.create_connection((relay.host, relay.port), timeout=0.2) as late:
            late.sendall(REQUEST.pack(0, 3))
            with pytest.raises(TimeoutError):
                late.recv(1)
            relay.restore()
            late.settimeout(5)
            assert late.recv(10) == bytes(3)
        connection.settimeout(5)
        with connection.makefile("rb") as stream:
            assert stream.read(500) == bytes(500)


def test_a_black_hole_may_end_in_a_reset(peer: Peer) -> None:
    with Relay(peer.address, Link(10, 10)) as relay, connected(relay) as connection:
        relay.cut("blackhole")
        relay.cut("reset")
        with pytest.raises(ConnectionError):
            exchange(connection, 1, 1)


def test_an_end_follows_the_bytes_before_it(peer: Peer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Relay(server.getsockname(), Link(5, 5, 20)) as relay:
        connection = socket.create_connection((relay.host, relay.port))
        connection.sendall(bytes(50_000))
        connection.close()
        upstream, _ = server.accept()
        with upstream, upstream.makefile("rb") as stream:
            assert len(stream.read()) == 50_000


def test_an_upstream_that_is_not_there_resets_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    with (
        Relay(nobody, Link(5, 5)) as relay,
        socket.create_connection((relay.host, relay.port), timeout=5) as connection,
        pytest.raises(ConnectionError),
    ):
        connection.recv(1)


def test_a_client_that_breaks_off_breaks_the_upstream_connection(peer: Peer) -> None:
    with Relay(peer.address, Link(5, 5)) as relay:
        with connected(relay) as connection:
            connection.sendall(REQUEST.pack(0, 100_000))
            time.sleep(0.05)  # closed with unread bytes, a socket resets
        deadline = time.monotonic() + 5
        while peer.connections[0].fileno() != -1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert peer.connections[0].fileno() == -1


def test_closing_twice_and_a_port_of_choice(peer: Peer) -> None:
    relay = Relay(peer.address, Link(5, 5))
    port = relay.port
    relay.close()
    relay.close()
    with Relay(peer.address, Link(5, 5), port=port) as again:
        assert again.port == port
        with pytest.raises(OSError, match="in use"):
            Relay(peer.address, Link(5, 5), port=port)
