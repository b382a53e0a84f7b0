"""A router that forgets: its connections go on to exist at both ends, and nothing passes over them any more."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Final, Self

HOST: Final = "127.0.0.1"
PIECE: Final = 64 * 1024


class Nat:
    """A port behind which `upstream` lies; may be used from any thread. New connections always work."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._listener = socket.create_server((HOST, 0))
        self._flows: dict[socket.socket, socket.socket] = {}
        self._forgotten: list[socket.socket] = []
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"nat-{self.port}", daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return HOST

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many work."""
        with self._lock:
            return len(self._flows) // 2

    def forget(self) -> None:
        """Carry nothing any more over the connections there are, and tell nobody."""
        with self._lock:
            flows = list(self._flows)
            for flow in flows:
                self._selector.unregister(flow)
            self._flows.clear()
            self._forgotten += flows

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        self.forget()
        for flow in (*self._forgotten, self._listener):
            flow.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            for key, _ in self._selector.select(0.05):
                with self._lock, contextlib.suppress(KeyError):
                    self._turn(key.fileobj)  # type: ignore[arg-type]  # only sockets are registered

    def _turn(self, ready: socket.socket) -> None:
        if ready is self._listener:
            self._open()
            return
        other = self._flows[ready]
        try:
            data = ready.recv(PIECE)
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (ready, other):
                self._selector.unregister(end)
                del self._flows[end]
                end.close()

    def _open(self) -> None:
        client, _ = self._listener.accept()
        try:
            upstream = socket.create_connection(self._upstream)
        except OSError:
            client.close()
            return
        for one, other in ((client, upstream), (upstream, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._flows[one] = other
            self._selector.register(one, selectors.EVENT_READ)
