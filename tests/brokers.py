"""Real Mosquitto brokers for the tests: the local binary, or a container where only Docker is."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

PRODUCTION = Path(__file__).parent.parent / "mosquitto"
IMAGE = "eclipse-mosquitto:2"
PLAIN, TLS, TLS_PASSWORD = PORTS = (1883, 8883, 8884)
START_SECONDS = 15.0

SHARED_SETTINGS = (
    "set_tcp_nodelay",
    "max_packet_size",
    "max_inflight_messages",
    "max_queued_messages",
    "max_queued_bytes",
    "queue_qos0_messages",
    "max_keepalive",
    "memory_limit",
)
"""What every test broker takes from the production configuration, so that tests meet the limits that users meet."""

NO_BROKER = (
    "No Mosquitto for the tests: install mosquitto (`apt-get install mosquitto`), or start a Docker engine that has "
    f"or can pull {IMAGE}."
)


@dataclass(frozen=True)
class Place:
    """Where a broker finds itself: the folder of its files, the address to bind, and its ports by well-known port."""

    folder: str
    bind: str
    ports: Mapping[int, int]


@dataclass(frozen=True)
class ServerTls:
    """PEM texts for a TLS listener on port 8883; `require_certificate` makes the client's CN its user name."""

    ca: bytes
    certificate: bytes
    key: bytes
    require_certificate: bool = True


@dataclass(frozen=True)
class Setup:
    """A broker to be: its configuration as a function of its place, and the files beside it."""

    config: Callable[[Place], str]
    files: Mapping[str, bytes]
    peers: Mapping[str, Broker] = field(default_factory=dict)
    """Other brokers of the same kind, by the host name that the configuration has for them."""


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


def simple_setup(
    *lines: str,
    users: Mapping[str, str] | None = None,
    acl: str | None = None,
    tls: ServerTls | None = None,
) -> Setup:
    """The production limits, a plain listener, and what a test asks for."""
    files: dict[str, bytes] = {}
    if users is not None:
        files["passwords"] = "".join(password_line(user, word) for user, word in users.items()).encode()
    if acl is not None:
        files["acl"] = acl.encode()
    if tls is not None:
        files |= {"ca.crt": tls.ca, "server.crt": tls.certificate, "server.key": tls.key}

    def config(place: Place) -> str:
        return "\n".join(
            [
                *run_as(),
                *production_settings(),
                f"allow_anonymous {'false' if users is not None else 'true'}",
                *([f"password_file {place.folder}/passwords"] if users is not None else []),
                *([f"acl_file {place.folder}/acl"] if acl is not None else []),
                *(tls_listener(tls, place) if tls is not None else []),
                f"listener {place.ports[PLAIN]} {place.bind}",
                *lines,
                "",
            ]
        )

    return Setup(config, files)


def tls_listener(tls: ServerTls, place: Place) -> list[str]:
    wants = str(tls.require_certificate).lower()
    return [
        f"listener {place.ports[TLS]} {place.bind}",
        f"cafile {place.folder}/ca.crt",
        f"certfile {place.folder}/server.crt",
        f"keyfile {place.folder}/server.key",
        f"require_certificate {wants}",
        f"use_identity_as_username {wants}",
    ]


def run_as() -> list[str]:
    """Started by root, Mosquitto becomes a user who cannot read a test's private files: stay who we are."""
    return ["user root"]


@functools.cache
def production_settings() -> tuple[str, ...]:
    """The lines of mosquitto/mosquitto.conf that every test broker shares."""
    lines = (PRODUCTION / "mosquitto.conf").read_text().splitlines()
    return tuple(line for line in lines if line.split(" ", 1)[0] in SHARED_SETTINGS)


def password_line(user: str, password: str) -> str:
    """One line of a Mosquitto password file, as `mosquitto_passwd` writes it (PBKDF2, SHA-512)."""
    salt, rounds = os.urandom(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"{user}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


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
