"""A TCP relay that behaves like a link of a chosen rate and delay, which can be changed or cut at any moment.

Nothing is read from a sender until the line has room, so that senders feel the link as they would a slow network.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Literal, Self

from splitbus_demo.line import Line, Link

Address = tuple[str, int]
CutMode = Literal["reset", "blackhole"]
"""reset: connections break, and so does every new one. blackhole: nothing arrives and nobody is told."""

HOST: Final = "127.0.0.1"
SOCKET_BUFFER: Final = 32 * 1024
"""The kernel's part on each side: small, else a sender would see megabytes accepted in no time."""
LATENESS: Final = 0.002
"""Data found waiting came while this thread slept or was not let run; a line does not idle for that, up to this."""
CALL_SECONDS: Final = 5.0
"""For the relay's thread to do as told; it never works longer than a piece takes."""


class Relay:
    """A port of this machine behind which `upstream` lies at the end of a link; may be used from any thread.

    Raises OSError when the port (0 for any) is taken.
    """

    def __init__(self, upstream: Address, link: Link, *, port: int = 0) -> None:
        self._link = link
        self._listener = _listen(port)
        self._wire = _Wire(self._listener, upstream, link)
        # select() waits in microseconds, epoll() in milliseconds; and the connections are a handful
        self._loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._thread = threading.Thread(target=self._run, name=f"relay-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def host(self) -> str:
        """Where it listens."""
        return HOST

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    @property
    def link(self) -> Link:
        """What it imitates now."""
        return self._link

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes taken so far, up and down."""
        return self._wire.up.carried, self._wire.down.carried

    def set(self, link: Link) -> None:
        """Change rate and delay for whatever is sent from now on."""
        self._call(self._wire.set(link))
        self._link = link

    def cut(self, mode: CutMode = "reset") -> None:
        """Let nothing through until `restore`."""
        self._call(self._wire.cut(mode))

    def restore(self) -> None:
        """End a cut; in a black hole, connections and what they hold go on where they stopped."""
        self._call(self._wire.restore())

    def close(self) -> None:
        """End every connection and the relay's thread; safe to call twice."""
        if self._thread.is_alive():
            self._call(self._wire.close())
            self._thread.join()

    def _call(self, action: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(CALL_SECONDS)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._wire.serve())
        finally:
            self._loop.close()
            self._listener.close()


class _Wire:
    """The relay inside its event loop: two lines, and the connections that share them."""

    def __init__(self, listener: socket.socket, upstream: Address, link: Link) -> None:
        self.up = Line(link.up_mbit, link.delay_ms)
        self.down = Line(link.down_mbit, link.delay_ms)
        self._listener = listener
        self._upstream = upstream
        self._whole = asyncio.Event()
        self._whole.set()
        self._resets = False
        self._closed = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        accepting = asyncio.create_task(self._accept())
        await self._closed.wait()
        accepting.cancel()
        await asyncio.wait([accepting])
        await self._reset_all()

    async def set(self, link: Link) -> None:
        self.up.set(link.up_mbit, link.delay_ms)
        self.down.set(link.down_mbit, link.delay_ms)

    async def cut(self, mode: CutMode) -> None:
        self._whole.clear()
        self._resets = mode == "reset"
        if self._resets:
            await self._reset_all()

    async def restore(self) -> None:
        self._resets = False
        self._whole.set()

    async def close(self) -> None:
        self._closed.set()

    async def _reset_all(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            if self._resets:
                _reset(client)
                continue
            connection = asyncio.create_task(self._connect(client))
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)

    async def _connect(self, client: socket.socket) -> None:
        """Carry one connection until both sides have ended it; reset both when it breaks or is cut."""
        upstream = socket.socket()
        _tune(upstream)
        try:
            await self._whole.wait()
            await asyncio.get_running_loop().sock_connect(upstream, self._upstream)
            _tune(client)
            # the client's kernel was answered at once; over the real link that takes a round trip
            await asyncio.sleep(self.up.delay + self.down.delay)
            await self._carry(client, upstream)
        except (OSError, asyncio.CancelledError):
            _reset(client)
            _reset(upstream)
        finally:
            client.close()
            upstream.close()

    async def _carry(self, client: socket.socket, upstream: socket.socket) -> None:
        flows = (_Flow(client, upstream, self.up, self._whole), _Flow(upstream, client, self.down, self._whole))
        broken = False
        try:
            async with asyncio.TaskGroup() as tasks:
                for flow in flows:
                    tasks.create_task(flow.read())
                    tasks.create_task(flow.write())
        except* OSError:
            broken = True
        if broken:
            raise ConnectionResetError


class _Flow:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, target: socket.socket, line: Line, whole: asyncio.Event) -> None:
        self._source = source
        self._target = target
        self._line = line
        self._whole = whole
        self._pieces: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()
        self._held = 0
        self._room = asyncio.Event()

    async def read(self) -> None:
        """Take what the source sends as fast as the line does; its end, empty, or its break, None, go the same way."""
        loop = asyncio.get_running_loop()
        data: bytes | None = b"-"
        while data:
            await self._turn()
            late = LATENESS
            try:
                data = self._source.recv(self._line.piece)
            except BlockingIOError:
                data, late = await self._next(), 0.0
            except OSError:
                data = None
            size = len(data or b"")
            self._held += size
            self._pieces.put_nowait((self._line.send(loop.time() - late, size), data))

    async def _next(self) -> bytes | None:
        try:
            return await asyncio.get_running_loop().sock_recv(self._source, self._line.piece)
        except OSError:
            return None

    async def write(self) -> None:
        """Hand over each piece when it has arrived."""
        loop = asyncio.get_running_loop()
        while True:
            arrival, data = await self._pieces.get()
            await asyncio.sleep(arrival - loop.time())
            await self._whole.wait()
            if not data:
                break
            await loop.sock_sendall(self._target, data)
            self._held -= len(data)
            self._room.set()
        if data is None:
            raise ConnectionResetError
        with suppress(OSError):  # the target may have left by itself
            self._target.shutdown(socket.SHUT_WR)

    async def _turn(self) -> None:
        """Wait until the target has taken what it was sent, the link is whole and the line has room."""
        while self._held > self._line.capacity:
            self._room.clear()
            await self._room.wait()
        while True:
            await self._whole.wait()
            busy = self._line.wait(asyncio.get_running_loop().time())
            if busy <= 0:
                return
            await asyncio.sleep(busy)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _tune(listener)  # the buffers of a connection are its listener's
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise
    listener.listen()
    return listener


def _tune(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)


def _reset(connection: socket.socket) -> None:
    """Close so that the other side gets an error at once, and what is on its way is lost."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
