"""Starts an MQTT broker for the demo: Mosquitto where it is installed, else the one that comes in a wheel."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from splitbus_demo import guard
from splitbus_schemas.errors import BusError, ConfigError

Kind = Literal["mosquitto", "iotcore"]

HOST: Final = "127.0.0.1"
MAX_PACKET_BYTES: Final = 16 * 2**20
"""The largest packet either broker takes: four times the largest activation of the demo's model."""
START_SECONDS: Final = 10.0
"""For a broker to answer a CONNECT; both take about a tenth of a second on an idle machine."""
ATTEMPTS: Final = 3
"""A free port may be taken by another program before the broker has it."""

MOSQUITTO_CONFIG: Final = """\
# This machine only, so that no password is needed.
listener {port} 127.0.0.1
allow_anonymous true
# Without it Nagle's algorithm costs 40 ms on small packets.
set_tcp_nodelay true
# Announced to clients, which chunk what is larger. No message_size_limit: clients are not told of that one.
max_packet_size {max_packet_bytes}
# A demo starts from nothing and leaves nothing behind.
persistence false
# A subscriber that stops reading loses messages instead of filling the machine's memory.
max_queued_messages 1000
max_queued_bytes 67108864
memory_limit 536870912
log_dest stderr
log_type error
log_type warning
"""

IOTCORE_CONFIG: Final = """\
id = 0
[router]
id = 0
max_connections = 200
max_outgoing_packet_count = 200
# Every topic filter may keep this many bytes this many times; the usual 100 MB by 10 cost 1.1 GB of memory.
max_segment_size = 4194304
max_segment_count = 8
# A version 5 listener: the version 4 one drops user properties.
[v5.1]
name = "demo"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 5000
# The usual limit of 20 kB cuts off larger publishers without a word.
max_payload_size = {max_packet_bytes}
max_inflight_count = 200
"""

_CONNECT: Final = bytes.fromhex("100d 0004 4d515454 05 02 000a 00 0000")
"""MQTT 5, clean start, keepalive 10 s, no properties, the broker chooses the client id."""
_DISCONNECT: Final = bytes.fromhex("e000")
_CONNACK: Final = 0x20


@dataclass(frozen=True)
class Broker:
    """A running broker that answers; `log` is its output."""

    kind: Kind
    version: str
    host: str
    port: int
    log: Path


@dataclass(frozen=True)
class _Recipe:
    """How to start one kind of broker: what to run, and its configuration by file name and text."""

    kind: Kind
    version: str
    command: tuple[str, ...]
    config: str


@contextmanager
def start_broker(prefer: Kind | None = None) -> Iterator[Broker]:
    """A broker on a free port of this machine, ended with the block or with this process, however that ends.

    Raises ConfigError when none (or not the preferred one) is installed, BusError when it does not start.
    """
    recipe = _recipe(prefer)
    with TemporaryDirectory(prefix="splitbus-broker-") as folder:
        process, broker = _start(recipe, Path(folder))
        try:
            yield broker
        finally:
            guard.stop(process)


def installed() -> tuple[Kind, ...]:
    """The kinds that this machine can start, best first."""
    return tuple(kind for kind, find in _FINDERS.items() if find() is not None)


def answers_connect(host: str, port: int, timeout: float = 1.0) -> bool:
    """Whether an MQTT 5 broker accepts an anonymous CONNECT there."""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.sendall(_CONNECT)
            reply = connection.recv(64)
            connection.sendall(_DISCONNECT)
    except OSError:
        return False
    # type, length (one byte: neither broker sends 128 bytes of properties), flags, reason
    return len(reply) > 3 and reply[0] == _CONNACK and reply[3] == 0


def _recipe(prefer: Kind | None) -> _Recipe:
    wanted = (prefer,) if prefer else tuple(_FINDERS)
    for kind in wanted:
        found = _FINDERS[kind]()
        if found is not None:
            return found
    raise ConfigError(
        f"no broker to start ({' or '.join(wanted)}): install Mosquitto, or run pip install 'splitbus[demo]'"
    )


def _mosquitto() -> _Recipe | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
    program = shutil.which("mosquitto", path=path)
    if program is None:
        return None
    # Its help says the version in the first line, and ends with exit code 3.
    shown = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout.split()
    version = shown[2] if len(shown) > 2 else "unknown"
    return _Recipe("mosquitto", version, (program, "-c"), MOSQUITTO_CONFIG)


def _iotcore() -> _Recipe | None:
    if util.find_spec("iotcore") is None:
        return None
    command = (sys.executable, "-P", "-m", "splitbus_demo.embedded_broker")
    return _Recipe("iotcore", metadata.version("iotcore"), command, IOTCORE_CONFIG)


_FINDERS: Final[dict[Kind, Callable[[], _Recipe | None]]] = {"mosquitto": _mosquitto, "iotcore": _iotcore}


def _start(recipe: _Recipe, folder: Path) -> tuple[subprocess.Popen[bytes], Broker]:
    log = folder / "broker.log"
    for _ in range(ATTEMPTS):
        port = _free_port()
        config = folder / f"{recipe.kind}.toml"
        config.write_text(recipe.config.format(port=port, max_packet_bytes=MAX_PACKET_BYTES), encoding="utf-8")
        process = guard.start([*recipe.command, str(config)], log=log)
        if _ready(process, port):
            return process, Broker(recipe.kind, recipe.version, HOST, port, log)
        guard.stop(process)
    raise BusError(f"{recipe.kind} {recipe.version} did not start: {_last_line(log)}")


def _ready(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if answers_connect(HOST, port):
            return process.poll() is None
        time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def _last_line(log: Path) -> str:
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
