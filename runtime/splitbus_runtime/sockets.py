"""How the connection to the broker is tuned."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import ssl
import struct
import termios
from typing import Any, Final

USER_TIMEOUT_MS: Final = 6000
"""Linux gives up a connection whose bytes nobody acknowledged for this long."""

SEND_BUFFER_BYTES: Final = 256 * 1024
"""What the kernel may hold of ours: more would be a queue of stale frames on a slow link."""


LAST_ACK_AT: Final = 56
"""Where Linux's struct tcp_info holds tcpi_last_ack_recv, in milliseconds."""


def tune(sock: Any) -> None:
    """No waiting for more to send, little room for stale bytes, and an early end of a dead connection."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def acknowledge_at_once(sock: Any) -> None:
    """After each read: a broker without TCP_NODELAY waits 40 ms for it (M11 in the list of pitfalls)."""
    if hasattr(socket, "TCP_QUICKACK"):
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def unacknowledged(sock: Any) -> int:
    """Bytes of ours that the peer's kernel has not acknowledged; 0 where nobody can tell."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
    except (OSError, ValueError):
        return 0


def acknowledged_s(sock: Any) -> float:
    """Seconds since the peer's kernel last acknowledged anything, be it that it has no room; infinite if unknown."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, LAST_ACK_AT + 4)
        return int(struct.unpack_from("=I", info, LAST_ACK_AT)[0]) / 1e3
    except (AttributeError, OSError, ValueError, struct.error):
        return float("inf")


def say_goodbye(sock: Any, words: bytes, seconds: float) -> None:
    """Send the last words and read until the peer closes.

    A socket closed with unread bytes resets the connection, and the peer may never read what was sent last: a broker
    that is just handing us our own message then publishes our will.
    """
    with contextlib.suppress(OSError):
        sock.settimeout(seconds)
        sock.sendall(words)
        while sock.recv(2**16):
            pass


class TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho drops it open, and then its end is a ResourceWarning."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of ssl
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise
