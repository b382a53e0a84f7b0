"""Tells systemd how a daemon does (sd_notify(3)); without systemd, nobody."""

from __future__ import annotations

import contextlib
import os
import socket

from splitbus_runtime.secrets import redacted


def notify(state: str) -> None:
    """Send READY=1, WATCHDOG=1, STATUS=... or the like; a systemd that does not listen is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # in the abstract namespace
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(redacted(state).encode(), address)
