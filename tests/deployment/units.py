"""A stand-in for systemd: reads a unit file as shipped, starts its program as it says, and hears its notifications."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNITS: Final = Path(__file__).parent.parent.parent / "systemd"
PROGRAM: Final = "/opt/splitbus/bin/splitbus"
ETC: Final = "/etc/splitbus"
PATIENCE_SECONDS: Final = 30.0

HARDENED: Final = """
import ctypes, os, sys
PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 38, 65
libc = ctypes.CDLL(None)
libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)
os.umask(0o077)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""NoNewPrivileges=, MemoryDenyWriteExecute= and UMask= by the kernel's own switches; of MDWE from Linux 6.3 on."""


@dataclass(frozen=True)
class Unit:
    """What a unit file says about the process; `instance` fills in its %i."""

    name: str
    instance: str = ""

    def values(self, key: str) -> list[str]:
        """All values of a key, in order."""
        lines = (UNITS / self.name).read_text().splitlines()
        return [
            line.removeprefix(f"{key}=").replace("%i", self.instance) for line in lines if line.startswith(f"{key}=")
        ]

    @property
    def command(self) -> list[str]:
        """ExecStart, in words."""
        (line,) = self.values("ExecStart")
        return shlex.split(line)


class Notifications:
    """The socket of Type=notify, and what has been said on it, with the time."""

    def __init__(self) -> None:
        self._name = f"splitbus-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self._name}")
        self._said: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._hear, name="notifications", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """For NOTIFY_SOCKET."""
        return f"@{self._name}"

    def since(self, moment: float) -> list[str]:
        return [text for at, text in list(self._said) if at >= moment]

    def wait(self, beginning: str, since: float = 0.0) -> str:
        """The first notification after a moment that begins so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = next((text for text in self.since(since) if text.startswith(beginning)), None)
            if found is not None:
                return found
            time.sleep(0.02)
        raise AssertionError(f"no {beginning!r} among {self.since(since)}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
            sender.sendto(b"", f"\0{self._name}")
        self._thread.join(5)
        self._socket.close()

    def _hear(self) -> None:
        while data := self._socket.recv(4096):
            self._said.append((time.monotonic(), data.decode()))


class Service:
    """A unit's program, started with the unit's command, environment, credentials and some of its hardening.

    `folder` stands for /etc/splitbus, and holds `state` in place of /var/lib.
    """

    def __init__(self, unit: Unit, folder: Path) -> None:
        self.unit = unit
        self.notifications = Notifications()
        program, *arguments = unit.command
        assert program == PROGRAM
        credentials = folder / "credentials"
        credentials.mkdir()
        for entry in unit.values("LoadCredential"):
            name, _, source = entry.partition(":")
            (credentials / name).write_bytes(Path(source.replace(ETC, str(folder))).read_bytes())
        environment = dict(
            entry.replace("%S", str(folder / "state")).split("=", 1) for entry in unit.values("Environment")
        )
        self._log = folder / "log"
        words = [word.replace(ETC, str(folder)) for word in arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HARDENED, sys.executable, "-m", "splitbus_cli", *words],
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment | self._given(credentials),
            )

    def _given(self, credentials: Path) -> dict[str, str]:
        """What systemd sets for every service."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "LANG": "C.UTF-8",
            "CREDENTIALS_DIRECTORY": str(credentials),
            "NOTIFY_SOCKET": self.notifications.address,
        }

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        """`systemctl stop`: the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.notifications.close()
