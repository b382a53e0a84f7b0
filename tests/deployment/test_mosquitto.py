"""mosquitto/mosquitto.conf as shipped, really started."""

from __future__ import annotations

import socket
import ssl
import statistics
import time
from datetime import UTC, datetime

import pytest
from tests.broker_setup import PLAIN, TLS, TLS_PASSWORD
from tests.brokers import Broker, BrokerFactory
from tests.deployment.client import Client, ConnectRefusedError
from tests.deployment.site import TOPIC, Site

from splitbus_gateway.certificates import create_authority, issue_node

pytestmark = pytest.mark.broker


def test_a_password_over_tls(production: Broker, site: Site) -> None:
    client = site.client("cam-a").trust(site.ca)
    with client.connected(production.host, production.ports[TLS_PASSWORD]):
        assert client.publish(f"{TOPIC}/echo/cam-a") != "Not authorized"


@pytest.mark.parametrize(("user", "password"), [("cam-a", "wrong"), ("nobody", "x"), (None, None)])
@pytest.mark.parametrize("listener", [PLAIN, TLS_PASSWORD])
def test_a_wrong_password_is_refused(
    production: Broker, site: Site, user: str | None, password: str | None, listener: int
) -> None:
    client = Client(user, password)
    if listener == TLS_PASSWORD:
        client.trust(site.ca)
    with (
        pytest.raises(ConnectRefusedError, match="Not authorized"),
        client.connected(production.host, production.ports[listener]),
    ):
        pass


def test_a_certificate_is_a_name_and_needs_no_password(production: Broker, site: Site) -> None:
    client = Client().trust(site.ca, site.folder / "cam-a.crt", site.folder / "cam-a.key")
    with client.connected(production.host, production.ports[TLS]):
        client.subscribe(f"{TOPIC}/echo/cam-a")
        assert client.publish(f"{TOPIC}/echo/cam-a") == "Success"
        assert client.receive().topic == f"{TOPIC}/echo/cam-a"
        assert client.publish(f"{TOPIC}/echo/cam-b") == "Not authorized"


def test_a_certificate_wins_over_a_claimed_user_name(production: Broker, site: Site) -> None:
    client = site.client("gateway").trust(site.ca, site.folder / "cam-a.crt", site.folder / "cam-a.key")
    with client.connected(production.host, production.ports[TLS]):
        assert client.publish(f"{TOPIC}/ctl/cam-a/plan/m") == "Not authorized"


def test_no_certificate_or_a_strangers_is_refused(production: Broker, site: Site) -> None:
    stranger = create_authority("home", datetime.now(UTC))
    issue_node(stranger, "cam-a", datetime.now(UTC)).write(site.folder / "stranger", "cam-a")
    own = Client().trust(site.ca, site.folder / "stranger" / "cam-a.crt", site.folder / "stranger" / "cam-a.key")
    for client in (site.client("cam-a").trust(site.ca), own):
        assert refused(client, production)


def refused(client: Client, broker: Broker) -> bool:
    """Under TLS 1.3 the refusal comes after the handshake, as a closed connection."""
    try:
        client.raw.connect(broker.host, broker.ports[TLS])
        client.raw.loop_start()
        try:
            return client.disconnected.wait(10) and client.connack is None
        finally:
            client.raw.loop_stop()
    except (ssl.SSLError, ConnectionError):
        return True


def test_a_broker_with_a_strangers_certificate_is_not_trusted(production: Broker, site: Site) -> None:
    other = create_authority("other", datetime.now(UTC)).pem.decode()
    context = ssl.create_default_context(cadata=other)
    address = (production.host, production.ports[TLS_PASSWORD])
    with socket.create_connection(address, timeout=10) as sock, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(sock, server_hostname="localhost")


def test_limits_are_announced_and_kept(production: Broker, site: Site) -> None:
    client = site.client("cam-a", keepalive=3600)
    with client.connected(production.host, production.port):
        assert client.connack is not None
        assert client.connack.MaximumPacketSize == 1048576
        assert client.connack.ServerKeepAlive == 60
        assert client.publish(f"{TOPIC}/node/cam-a/stats", bytes(1048576 - 100)) != "Not authorized"
        client.raw.publish(f"{TOPIC}/node/cam-a/stats", bytes(1048576), qos=1)
        assert client.disconnected.wait(10)


def test_small_messages_are_not_held_back(production: Broker, site: Site) -> None:
    """With Nagle's algorithm an answer waits until the PUBACK before it is acknowledged, 40 ms later."""
    job, reply, times = f"{TOPIC}/job/edge1/cam-a", f"{TOPIC}/reply/cam-a/boot", []
    with (
        site.client("cam-a").connected(production.host, production.port) as device,
        site.client("edge1").connected(production.host, production.port) as worker,
    ):
        device.subscribe(reply)
        worker.subscribe(job)
        for _ in range(20):
            start = time.perf_counter()
            device.publish(job, bytes(4096))
            worker.receive()
            worker.publish(reply)
            device.receive()
            times.append(time.perf_counter() - start)
    assert statistics.median(times) < 0.03


def test_retained_state_survives_a_restart(broker_factory: BrokerFactory, site: Site) -> None:
    topic = f"{TOPIC}/ctl/cam-a/plan/m"
    with broker_factory(setup=site.setup()) as broker:
        with site.client("gateway").connected(broker.host, broker.port) as gateway:
            gateway.publish(topic, b"the plan", retain=True)
        broker.restart()
        with site.client("cam-a").connected(broker.host, broker.port) as camera:
            camera.subscribe(f"{TOPIC}/ctl/cam-a/#")
            message = camera.receive()
            assert (message.topic, message.payload, message.retain) == (topic, b"the plan", True)
