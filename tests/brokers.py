"""Real Mosquitto brokers for the tests: the local binary, or a container where only Docker is."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from tests.broker_setup import PLAIN, PORTS, Place, ServerTls, Setup

IMAGE = "eclipse-mosquitto:2"
START_SECONDS = 15.0

NO_BROKER = (
    "No Mosquitto for the tests: install mosquitto (`apt-get install mosquitto`), or start a Docker engine that has "
    f"or can pull {IMAGE}."
)


class Broker(ABC):
    """A running Mosquitto that can be killed, restarted and suspended on the same port."""

    kind: str
    ports: Mapping[int, int]

    @property
    @abstractmethod
    def host(self) -> str:
        """Where clients find it."""

    @property
    def port(self) -> int:
        """The plain MQTT port."""
        return self.ports[PLAIN]

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    @abstractmethod
    def launch(self) -> None:
        """Start the process; returns before it listens."""

    @abstractmethod
    def kill(self) -> None:
        """End it as a power cut would."""

    @abstractmethod
    def stop(self) -> None:
        """End it in order: it saves its database."""

    @abstractmethod
    def suspend(self) -> None:
        """Freeze it: sockets stay open, nothing is answered."""

    @abstractmethod
    def resume(self) -> None: ...

    @abstractmethod
    def running(self) -> bool: ...

    @abstractmethod
    def log(self) -> str: ...

    def start(self) -> None:
        """Start it, on the ports it had before, and wait until it answers a CONNECT."""
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not answers_connect(self.host, self.port):
            if not self.running() or time.monotonic() > deadline:
                raise RuntimeError(f"Mosquitto did not start:\n{self.log()}")
            time.sleep(0.02)

    def restart(self) -> None:
        """Stop in order and start again."""
        self.stop()
        self.start()


class LocalBroker(Broker):
    """The `mosquitto` of this machine."""

    kind = "binary"
    host = "127.0.0.1"

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.ports = free_ports()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        config = setup.config(Place(str(folder), self.host, self.ports))
        for name, peer in setup.peers.items():
            for inside, outside in peer.ports.items():
                config = config.replace(f"{name}:{inside}", f"{peer.host}:{outside}")
        for name, content in {**setup.files, "mosquitto.conf": config.encode()}.items():
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o600)

    def launch(self) -> None:
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [local_binary() or "mosquitto", "-c", self._folder / "mosquitto.conf"], stdout=log, stderr=log
            )

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        self._signal(signal.SIGTERM)
        self._wait()

    def suspend(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return (self._folder / "mosquitto.log").read_text()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(timeout=10)


class ContainerBroker(Broker):
    """The official image, its files copied in, so that a remote engine works too."""

    kind = "docker"

    def __init__(self, setup: Setup) -> None:
        self.ports = free_ports()
        folder = "/mosquitto/config"
        hosts = {name: peer.address for name, peer in setup.peers.items() if isinstance(peer, ContainerBroker)}
        self._container = DockerContainer(IMAGE).with_kwargs(extra_hosts=hosts)
        for inside, outside in self.ports.items():
            self._container.with_bind_ports(inside, outside)
        place = Place(folder, "0.0.0.0", {port: port for port in PORTS})  # noqa: S104 - inside the container
        for name, content in {**setup.files, "mosquitto.conf": setup.config(place).encode()}.items():
            self._container.with_copy_into_container(content, f"{folder}/{name}", 0o600)
        self._created = False

    @property
    def host(self) -> str:
        return engine_host()

    @property
    def address(self) -> str:
        """Where other containers find it."""
        return self._container.get_docker_client().bridge_ip(self._container.get_container_id())

    def launch(self) -> None:
        if self._created:
            self._container.get_wrapped_container().start()
        else:
            self._created = True
            self._container.start()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()
        self._container.get_wrapped_container().wait()

    def stop(self) -> None:
        self._container.get_wrapped_container().stop()

    def suspend(self) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()

    def running(self) -> bool:
        self._container.reload()
        return self._container.status == "running"

    def log(self) -> str:
        return b"".join(self._container.get_logs()).decode(errors="replace")

    def remove(self) -> None:
        self._container.stop()


class BrokerFactory(Protocol):
    """Starts brokers; each ends with its `with` block."""

    def __call__(
        self,
        *lines: str,
        users: Mapping[str, str] | None = None,
        acl: str | None = None,
        tls: ServerTls | None = None,
        setup: Setup | None = None,
    ) -> contextlib.AbstractContextManager[Broker]:
        """A broker with extra configuration lines, passwords by user, an ACL text and a TLS listener; or `setup`."""


@contextlib.contextmanager
def run_broker(kind: str, folder: Path, setup: Setup) -> Iterator[Broker]:
    """A started broker of that kind; gone, with its container, at the end of the block."""
    broker = LocalBroker(setup, folder) if kind == "binary" else ContainerBroker(setup)
    try:
        broker.start()
        yield broker
    finally:
        if isinstance(broker, ContainerBroker):
            broker.remove()
        else:
            broker.kill()


def answers_connect(host: str, port: int) -> bool:
    """Whether an MQTT 5 broker answers there, be it by a refusal. A mere accept may be a container's port proxy."""
    connect = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00"
    try:
        with socket.create_connection((host, port), timeout=1) as sock:
            sock.sendall(connect)
            return sock.recv(1) == b"\x20"
    except OSError:
        return False


def free_ports() -> dict[int, int]:
    """A free port of this machine for each well-known one."""
    with contextlib.ExitStack() as stack:
        sockets = {port: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for port in PORTS}
        return {port: sock.getsockname()[1] for port, sock in sockets.items()}


def local_binary() -> str | None:
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@functools.cache
def docker_answers() -> bool:
    """Whether a Docker engine answers that has or can pull the image."""
    testcontainers_config.ryuk_disabled = True  # every container is removed by its own `with`: no reaper needed
    try:
        with contextlib.closing(DockerClient().client) as client:
            if not client.images.list(IMAGE):
                client.images.pull(IMAGE)
    except Exception:  # noqa: BLE001 - docker-py raises its own, requests' and OS errors when there is no engine
        return False
    return True


@functools.cache
def engine_host() -> str:
    """Where the engine publishes the ports of containers; tests that run in a container find it at the gateway."""
    docker = DockerClient()
    with contextlib.closing(docker.client) as client:
        if docker.get_connection_mode() == ConnectionMode.docker_host:
            return docker.host().replace("localhost", "127.0.0.1")
        network = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
        return str(network.get("Gateway") or ipaddress.ip_network(network["Subnet"])[1])


def client_host() -> str:
    """The host that every broker of these tests will have: a name for its certificate."""
    return engine_host() if broker_kind() == "docker" else "127.0.0.1"


@functools.cache
def broker_kind() -> str | None:
    """`binary` or `docker`, by SPLITBUS_TEST_BROKER (binary, docker, auto) and what is there; None when nothing is."""
    wanted = os.environ.get("SPLITBUS_TEST_BROKER", "auto")
    if wanted not in {"auto", "binary", "docker"}:
        raise pytest.UsageError(f"SPLITBUS_TEST_BROKER is {wanted!r}: use binary, docker or auto.")
    if wanted != "docker" and local_binary():
        return "binary"
    if wanted != "binary" and docker_answers():
        return "docker"
    return None


def describe_broker() -> str:
    """For pytest's header: which broker the tests use."""
    match broker_kind():
        case "binary":
            return f"{local_version()} ({local_binary()})"
        case "docker":
            return f"{IMAGE} in Docker (testcontainers)"
        case _:
            return f"none. {NO_BROKER}"


def local_version() -> str:
    text = subprocess.run([local_binary() or "mosquitto", "-h"], capture_output=True, text=True, check=False).stdout
    return text.partition("\n")[0].replace(" version", "")
