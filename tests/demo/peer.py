"""A TCP peer that answers with as many bytes as it is asked for."""

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field

REQUEST = struct.Struct(">II")
"""How many bytes follow, and how many are wanted back."""


@dataclass
class Peer:
    """A TCP server; `connections` are the ones it has."""

    listener: socket.socket
    connections: list[socket.socket] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return host, port

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections.append(connection)
                threading.Thread(target=self.answer, args=(connection,)).start()

    def answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while head := stream.read(REQUEST.size):
                size, wanted = REQUEST.unpack(head)
                stream.read(size)
                connection.sendall(bytes(wanted))

    def close(self) -> None:
        for sock in (self.listener, *self.connections):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
