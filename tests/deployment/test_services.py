"""Gateway and worker, started as their units say: ready after a SUBACK, watched through the broker, ended in order."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from tests.brokers import BrokerFactory
from tests.deployment.site import Site, password_of
from tests.deployment.units import Service, Unit

pytestmark = pytest.mark.broker

GATEWAY, WORKER = Unit("splitbus-gateway.service"), Unit("splitbus-worker@.service", "edge")
USERS = {GATEWAY: "gateway", WORKER: "edge1"}
FRESH_SECONDS = 10.0
"""A round trip through the broker not older than this feeds the watchdog."""

Start: TypeAlias = Callable[[Unit, str], Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a unit, set up for a broker's URL as README.md in systemd/ says."""
    with contextlib.ExitStack() as stack:

        def start(unit: Unit, url: str) -> Service:
            folder = tmp_path / USERS[unit]
            folder.mkdir()
            command = unit.command[1]
            settings = {
                "gateway": f'state_dir = "{folder}/state"\n',
                "worker": 'node = "edge1"\n',
            }[command]
            broker = f'[broker]\nurl = "{url}"\nusername = "{USERS[unit]}"\npassword_credential = "mqtt-password"\n'
            (folder / f"{command}.toml").write_text(settings + broker)
            (folder / f"{command}.password").write_text(f"{password_of(USERS[unit])}\n")
            return stack.enter_context(contextlib.closing(Service(unit, folder)))

        yield start


@pytest.fixture
def deaf_broker() -> Iterator[str]:
    """Takes every connection and answers CONNECT, but never SUBSCRIBE."""
    ended, taken = threading.Event(), list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    client, _ = server.accept()
                    taken.append(client)
                    client.sendall(b"\x20\x03\x00\x00\x00")

        thread = threading.Thread(target=serve, name="deaf-broker")
        thread.start()
        yield f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        thread.join(5)
        for client in taken:
            client.close()
        assert taken, "nobody came"


@pytest.mark.slow
def test_ready_watched_and_stopped(broker_factory: BrokerFactory, site: Site, start: Start) -> None:
    with broker_factory(setup=site.setup()) as broker:
        services = [start(unit, broker.url) for unit in (GATEWAY, WORKER)]
        for service in services:
            service.notifications.wait("READY=1")
            service.notifications.wait("WATCHDOG=1")
            assert " serves site home at mqtt://" in service.notifications.wait("STATUS=", time.monotonic())
        broker.suspend()
        time.sleep(FRESH_SECONDS + 1.5)
        hung = time.monotonic()
        time.sleep(2.5)
        for service in services:
            said = service.notifications.since(hung)
            assert "WATCHDOG=1" not in said
            assert any(text.startswith("STATUS=") for text in said), "it lives, and says how it does"
        broker.resume()
        for service in services:
            service.notifications.wait("WATCHDOG=1", hung)
        broker.kill()
        gone = time.monotonic()
        for service in services:
            service.notifications.wait(f"STATUS={USERS[service.unit]} waits for the broker", gone)
            assert service.stop() == 0, service.log
            service.notifications.wait("STOPPING=1", gone)
            assert "READY=1" not in service.notifications.since(gone)
            assert "Traceback" not in service.log


@pytest.mark.parametrize("unit", [GATEWAY, WORKER], ids=["gateway", "worker"])
def test_it_is_not_ready_before_a_suback(deaf_broker: str, start: Start, unit: Unit) -> None:
    service = start(unit, deaf_broker)
    service.notifications.wait("STATUS=")
    service.notifications.wait("EXTEND_TIMEOUT_USEC=")
    time.sleep(2)
    said = service.notifications.since(0)
    assert "READY=1" not in said
    assert "WATCHDOG=1" not in said
    assert service.stop() == 0, service.log
    service.notifications.wait("STOPPING=1")
