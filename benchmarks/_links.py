"""The links that benchmarks shape: `tc tbf` in a network namespace and a relay for the delay, or the relay alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from splitbus_demo import guard
from splitbus_demo.broker import HOST, MAX_PACKET_BYTES, MOSQUITTO_CONFIG, answers_connect
from splitbus_demo.line import MAX_MBIT, Link
from splitbus_demo.relay_process import RelayProcess
from splitbus_schemas.errors import BusError

Kind = Literal["tc", "relay"]

LINKS: Final = {
    "1.6/100": Link(1.6, 1.6, 50),
    "5/30": Link(5, 5, 15),
    "20/45": Link(20, 20, 22.5),
    "50/20": Link(50, 50, 10),
}
"""Mbit/s both ways, and the round trip in ms between device and broker."""

CLOUD: Final = Link(100, 100, 10)
"""Between the cloud's worker and the broker."""

_BURST: Final = "2kb"
"""One packet and a bit: what an idle bucket lets pass unshaped makes a train look faster than the link."""
_QUEUE: Final = "1mb"
"""More than the sockets of a device hold: nothing is dropped, as nothing is on a link that is shaped by its sender."""
_START_SECONDS: Final = 10.0


class Line(Protocol):
    """A link between one node and the broker, which can be changed at any moment."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """What starts a program at the node's end."""

    @property
    def address(self) -> tuple[str, int]:
        """Where the broker is seen from there."""

    def set(self, link: Link) -> None:
        """The pace of what is sent from now on."""


@dataclass(frozen=True)
class RelayLine:
    """Rate and delay by the relay, in user space."""

    relay: RelayProcess

    @property
    def prefix(self) -> tuple[str, ...]:
        return ()

    @property
    def address(self) -> tuple[str, int]:
        return self.relay.host, self.relay.port

    def set(self, link: Link) -> None:
        self.relay.set(link)


@dataclass(frozen=True)
class NamespaceLine:
    """Rate by the kernel on both ends of a pair of interfaces, delay by a relay at the node's end."""

    name: str
    relay: subprocess.Popen[str]
    port: int

    @property
    def prefix(self) -> tuple[str, ...]:
        return _inside(self.name)

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.port

    def set(self, link: Link) -> None:
        _shape(self.name, link)
        _tell(self.relay, {"set": asdict(_unlimited(link))})


@dataclass(frozen=True)
class Net:
    """A broker on a free port of this machine, and the device's and the cloud's lines to it."""

    broker: tuple[str, int]
    device: Line
    cloud: Line
    kind: Kind


def possible() -> bool:
    """Whether this process may make network namespaces and shape traffic."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        return False
    name = f"sbtry{os.getpid()}"
    made = _try("ip", "netns", "add", name)
    shaped = made and _try(*_inside(name), "tc", "qdisc", "add", "dev", "lo", "root", *_bucket(5))
    if made:
        _try("ip", "netns", "delete", name)
    return shaped


@contextlib.contextmanager
def open_net(folder: Path, link: Link, kind: Kind | None = None) -> Iterator[Net]:
    """Broker and lines, gone with the block. Raises BusError when the broker does not start."""
    kind = kind or ("tc" if possible() else "relay")
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(_namespace()) if kind == "tc" else ""
        broker = stack.enter_context(_broker(folder, _addresses(name)[0] if name else None))
        device: Line = (
            stack.enter_context(_namespace_line(name, broker[1], link))
            if name
            else RelayLine(stack.enter_context(RelayProcess(broker, link)))
        )
        yield Net(broker, device, RelayLine(stack.enter_context(RelayProcess(broker, CLOUD))), kind)


@contextlib.contextmanager
def _broker(folder: Path, also: str | None) -> Iterator[tuple[str, int]]:
    """Mosquitto on this machine's own address, and on another one."""
    program = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if program is None:
        raise BusError("this benchmark needs Mosquitto: install it")
    with socket.create_server((HOST, 0)) as server:
        port = int(server.getsockname()[1])
    text = MOSQUITTO_CONFIG.format(port=port, max_packet_bytes=MAX_PACKET_BYTES)
    config = folder / "mosquitto.conf"
    config.write_text(text + (f"listener {port} {also}\n" if also else ""))
    process = guard.start([program, "-c", str(config)], log=folder / "mosquitto.log")
    try:
        give_up = time.monotonic() + _START_SECONDS
        while not answers_connect(HOST, port):
            if time.monotonic() > give_up:
                raise BusError(f"Mosquitto did not start: {(folder / 'mosquitto.log').read_text()[-300:]}")
            time.sleep(0.05)
        yield HOST, port
    finally:
        guard.stop(process)


# Network namespaces


@contextlib.contextmanager
def _namespace() -> Iterator[str]:
    """A namespace joined to this one by a pair of interfaces, both called as it is."""
    name = f"sb{os.getpid()}"
    ours, theirs = _addresses(name)
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "up0", "netns", name)
        _run("ip", "address", "add", f"{ours}/30", "dev", name)
        _run("ip", "link", "set", name, "up")
        _run(*_inside(name), "ip", "address", "add", f"{theirs}/30", "dev", "up0")
        _run(*_inside(name), "ip", "link", "set", "up0", "up")
        _run(*_inside(name), "ip", "link", "set", "lo", "up")
        yield name
    finally:
        _run("ip", "netns", "delete", name)  # and with it both interfaces


@contextlib.contextmanager
def _namespace_line(name: str, port: int, link: Link) -> Iterator[NamespaceLine]:
    _shape(name, link)
    pace = json.dumps(asdict(_unlimited(link)))
    upstream = f"{_addresses(name)[0]}:{port}"
    command = [*_inside(name), sys.executable, "-P", "-m", "splitbus_demo.relay_process", upstream, pace]
    relay = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    try:
        yield NamespaceLine(name, relay, int(_answer(relay)["port"]))
    finally:
        for stream in (relay.stdin, relay.stdout):
            if stream is not None:
                stream.close()
        relay.wait(5)


def _shape(name: str, link: Link) -> None:
    _run("tc", "qdisc", "replace", "dev", name, "root", *_bucket(link.down_mbit))
    _run(*_inside(name), "tc", "qdisc", "replace", "dev", "up0", "root", *_bucket(link.up_mbit))


def _bucket(mbit: float) -> tuple[str, ...]:
    return "tbf", "rate", f"{mbit}mbit", "burst", _BURST, "limit", _QUEUE


def _unlimited(link: Link) -> Link:
    return replace(link, up_mbit=MAX_MBIT, down_mbit=MAX_MBIT)


def _addresses(name: str) -> tuple[str, str]:
    """Of the two ends, in a range that nobody routes; another pair for each namespace."""
    pair = int(name.removeprefix("sb")) % 16384 * 4
    return tuple(f"198.18.{(pair + end) // 256}.{(pair + end) % 256}" for end in (1, 2))  # type: ignore[return-value] # two


def _inside(name: str) -> tuple[str, ...]:
    return "ip", "netns", "exec", name


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BusError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _try(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _tell(relay: subprocess.Popen[str], command: dict[str, Any]) -> None:
    if relay.stdin is None or relay.poll() is not None:
        raise BusError("the relay has ended")
    relay.stdin.write(json.dumps(command) + "\n")
    relay.stdin.flush()
    _answer(relay)


def _answer(relay: subprocess.Popen[str]) -> dict[str, Any]:
    line = relay.stdout.readline() if relay.stdout is not None else ""
    if not line:
        raise BusError("the relay did not start")
    answer: dict[str, Any] = json.loads(line)
    return answer
