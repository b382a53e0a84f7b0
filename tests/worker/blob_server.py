"""The least that serves blobs over the bus, with the faults a test asks for."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from splitbus_runtime.bus import Bus, Delivery
from splitbus_runtime.transport import PacketPort
from splitbus_schemas.messages import BlobRequest
from splitbus_schemas.packet_types import BlobPiece
from splitbus_schemas.topics import BLOB_GET


class BlobServer:
    """Answers requests for `blobs`; what it sends is changed by overriding `pieces`."""

    def __init__(self, bus: Bus, blobs: Mapping[str, bytes], *, site: str = "t") -> None:
        self.blobs = dict(blobs)
        self.requests: list[tuple[str, int]] = []
        self.mute = threading.Event()
        self._port = PacketPort(bus, lambda _topic, _error: None)
        bus.subscribe(BLOB_GET.at(site, node="+"), self._answer, qos=1)

    def pieces(self, request: BlobRequest) -> list[BlobPiece]:
        """What goes out for one request."""
        data = self.blobs.get(request.sha256)
        if data is None:
            return [BlobPiece(request.sha256, 0, 0, b"", "no such blob here")]
        piece = data[request.offset : request.offset + request.length]
        return [BlobPiece(request.sha256, request.offset, len(data), piece)]

    def send(self, reply_to: str, piece: BlobPiece) -> None:
        self._port.send(reply_to, piece)

    def _answer(self, delivery: Delivery) -> None:
        request = BlobRequest.from_json(delivery.payload)
        self.requests.append((request.sha256, request.offset))
        if self.mute.is_set():
            return
        for piece in self.pieces(request):
            self.send(request.reply_to, piece)
