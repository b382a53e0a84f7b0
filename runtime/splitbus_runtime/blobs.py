"""Fetches blobs over the bus: piece by piece, resumed where it stopped, checked against their hash."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import weakref
from typing import Final, TypeAlias

from splitbus_runtime.store import BlobStore
from splitbus_runtime.transport import PacketPort, Parcel
from splitbus_schemas.errors import BlobError
from splitbus_schemas.limits import BLOB_CHUNK_BYTES, MAX_BLOB_BYTES
from splitbus_schemas.messages import BlobRequest
from splitbus_schemas.packet_types import BlobPiece
from splitbus_schemas.topics import BLOB_DATA, BLOB_GET

AHEAD: Final = 4
"""Pieces asked for before the first has come: hides the round trip, leaves room for plans."""

STALL_SECONDS: Final = 3.0
"""No piece for so long: ask again from where we are."""

PATIENCE_SECONDS: Final = 60.0
"""No piece for so long: give up, keep what has come, and say so."""

EMPTY: Final = hashlib.sha256(b"").hexdigest()
"""The blob of no bytes, which a weight without elements has: nobody need send it."""

Pieces: TypeAlias = queue.SimpleQueue[BlobPiece | None]
"""What has come of a blob; None when the client closes or is in a hurry."""


class BlobClient:
    """Fetches blobs from the gateway into a store; `fetch` may be called from several threads."""

    def __init__(self, port: PacketPort, *, site: str, node: str, boot: str, store: BlobStore) -> None:
        self._bus = port.bus
        self._ask_topic = BLOB_GET.at(site, node=node)
        self._data_topic = BLOB_DATA.at(site, node=node, boot=boot)
        self._store = store
        self._lock = threading.Lock()
        self._waiting: dict[str, Pieces] = {}
        self._turns: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        self._closed = threading.Event()
        port.receive(self._data_topic, self._take)

    def fetch(self, sha256: str, patience_s: float = PATIENCE_SECONDS) -> None:
        """Return once the store has the blob. Raises BlobError."""
        with self._lock:
            turn = self._turns.setdefault(sha256, threading.Lock())
        with turn:
            self._download(sha256, patience_s)

    def _download(self, sha256: str, patience_s: float) -> None:
        if sha256 == EMPTY:
            self._store.put(b"")
        if self._store.has(sha256):
            return
        pieces: Pieces = queue.SimpleQueue()
        with self._lock:
            self._waiting[sha256] = pieces
        try:
            _Download(self, sha256, pieces, patience_s).run()
        finally:
            with self._lock:
                del self._waiting[sha256]

    def close(self) -> None:
        """End downloads under way; they raise BlobError."""
        self._closed.set()
        self._wake()

    def hurry(self) -> None:
        """Something newer is wanted: downloads under way of which nothing comes for STALL_SECONDS raise BlobError."""
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            for pieces in self._waiting.values():
                pieces.put(None)

    @property
    def closed(self) -> bool:
        """Whether downloads are to end."""
        return self._closed.is_set()

    @property
    def store(self) -> BlobStore:
        """Where blobs go."""
        return self._store

    def ask(self, sha256: str, offset: int) -> None:
        """Ask for one piece."""
        request = BlobRequest(sha256=sha256, offset=offset, length=BLOB_CHUNK_BYTES, reply_to=self._data_topic)
        self._bus.publish(self._ask_topic, request.to_json(), qos=1, expiry_s=int(STALL_SECONDS) + 1)

    def _take(self, parcel: Parcel) -> None:
        piece = parcel.packet
        if isinstance(piece, BlobPiece):
            with self._lock:
                pieces = self._waiting.get(piece.sha256)
            if pieces is not None:
                pieces.put(BlobPiece(piece.sha256, piece.offset, piece.total, bytes(piece.data), piece.detail))


class _Download:
    """One blob on its way: what has come, what is asked for."""

    def __init__(self, client: BlobClient, sha256: str, pieces: Pieces, patience_s: float) -> None:
        self._client = client
        self._sha256 = sha256
        self._pieces = pieces
        self._patience_s = patience_s
        self._early: dict[int, BlobPiece] = {}
        self._have = client.store.partial(sha256)
        self._asked = self._have
        self._total: int | None = None

    def run(self) -> None:
        heard = time.monotonic()
        self._ask_ahead()
        while self._total is None or self._have < self._total:
            if self._client.closed:
                raise BlobError(f"blob {self._sha256[:12]} was not fetched: the node is stopping")
            try:
                piece = self._pieces.get(timeout=min(STALL_SECONDS, self._patience_s))
            except queue.Empty:
                if time.monotonic() - heard >= self._patience_s:
                    raise BlobError(
                        f"blob {self._sha256[:12]} did not come within {self._patience_s:g} s "
                        f"({self._have} bytes are kept): is the gateway running, and may this node read its topics?"
                    ) from None
                self._asked = self._have
                self._early.clear()
                self._ask_ahead()
                continue
            if piece is None:
                self._patience_s = min(self._patience_s, STALL_SECONDS)
            else:
                heard = time.monotonic()
                self._add(piece)
        self._client.store.finish(self._sha256)

    def _add(self, piece: BlobPiece) -> None:
        if piece.total == 0 or piece.total > MAX_BLOB_BYTES:
            raise BlobError(f"the gateway has no blob {self._sha256[:12]}: {piece.detail or 'no reason given'}")
        self._total = piece.total
        if piece.offset >= self._have and len(self._early) < 2 * AHEAD:
            self._early[piece.offset] = piece
        while (following := self._early.pop(self._have, None)) is not None and following.data:
            self._have = self._client.store.append(self._sha256, following.data, self._have)
        self._ask_ahead()

    def _ask_ahead(self) -> None:
        limit = self._have + AHEAD * BLOB_CHUNK_BYTES if self._total is not None else self._have + 1
        while self._asked < min(limit, self._total if self._total is not None else limit):
            self._client.ask(self._sha256, self._asked)
            self._asked += BLOB_CHUNK_BYTES
