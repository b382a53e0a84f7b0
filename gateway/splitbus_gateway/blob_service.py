"""Answers requests for pieces of blobs, fairly between nodes and no faster than is set."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Final

from splitbus_runtime.bus import Bus, Delivery
from splitbus_runtime.pulse import Pulse
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import BlobError, DecodeError, PayloadTooLargeError, SplitbusError
from splitbus_schemas.messages import Alert, BlobRequest
from splitbus_schemas.packet import encode
from splitbus_schemas.packet_types import BlobPiece
from splitbus_schemas.parts import split
from splitbus_schemas.topics import ALERT, BLOB_DATA, BLOB_GET

log = logging.getLogger(__name__)

MAX_WAITING: Final = 32
"""Requests of one node that wait; a node asks for a few pieces ahead and asks again after a silence."""

MAX_NODES: Final = 256
"""Nodes with requests waiting at once."""

ALERT_SECONDS: Final = 1.0
"""Refusals are counted one by one, but told no faster: a broken node must not flood the operators."""

BURST_SECONDS: Final = 0.05
"""How much of the rate may go out at once."""

STUCK_SECONDS: Final = 60.0
"""A piece that is not sent by then hangs: in the disk, or in the connection."""

DEFAULT_BYTES_PER_S: Final = 10_000_000.0


class FairQueue:
    """Requests by node: nodes take turns, and a node that asks for too much is refused alone."""

    def __init__(self, max_waiting: int = MAX_WAITING, max_nodes: int = MAX_NODES) -> None:
        self._max_waiting = max_waiting
        self._max_nodes = max_nodes
        self._nodes: OrderedDict[str, deque[BlobRequest]] = OrderedDict()

    def put(self, node: str, request: BlobRequest) -> bool:
        """Whether it was taken; a request that waits already counts as taken."""
        if node not in self._nodes and len(self._nodes) >= self._max_nodes:
            return False
        waiting = self._nodes.setdefault(node, deque())
        if request in waiting:
            return True
        if len(waiting) >= self._max_waiting:
            return False
        waiting.append(request)
        return True

    def pop(self) -> BlobRequest | None:
        """The oldest request of the node whose turn it is."""
        if not self._nodes:
            return None
        node, waiting = self._nodes.popitem(last=False)
        request = waiting.popleft()
        if waiting:
            self._nodes[node] = waiting
        return request


class Pace:
    """When the next bytes may go, at a rate with short bursts. Has no clock of its own."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._free_at = 0.0

    def delay(self, size: int, now: float) -> float:
        """Take `size` bytes of the rate; gives the seconds to wait before they go."""
        self._free_at = max(self._free_at, now - BURST_SECONDS)
        wait = max(0.0, self._free_at - now)
        self._free_at += size / self._rate
        return wait


class BlobService:
    """Serves the blobs of `store` to the nodes of a site, on a thread of its own until `close`.

    `node` is the gateway's id, for alerts; nobody is answered unless `serves`. `counters` counts pieces, bytes and
    refusals by reason.
    """

    def __init__(
        self,
        bus: Bus,
        store: BlobStore,
        *,
        site: str,
        node: str,
        bytes_per_s: float = DEFAULT_BYTES_PER_S,
        pulse: Pulse | None = None,
        serves: Callable[[], bool] = lambda: True,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._bus = bus
        self._store = store
        self._site = site
        self._node = node
        self._serves = serves
        self._pace = Pace(bytes_per_s)
        self._queue = FairQueue()
        self._pulse = pulse or Pulse(STUCK_SECONDS)
        self._turn = threading.Condition()
        self._closing = threading.Event()
        self._alert_at = -ALERT_SECONDS
        self._numbers = itertools.count(random.getrandbits(62))
        self._thread = threading.Thread(target=self._run, name="splitbus-blobs", daemon=True)
        self._thread.start()
        self._filter = BLOB_GET.at(site, node="+")
        bus.subscribe(self._filter, self._on_request, qos=BLOB_GET.qos)

    def close(self) -> None:
        """Answer nobody any more; requests that wait are dropped."""
        self._bus.unsubscribe(self._filter)
        self._closing.set()
        with self._turn:
            self._turn.notify()
        self._thread.join()

    def _on_request(self, delivery: Delivery) -> None:
        if delivery.retain or not self._serves():
            return  # a request of the past, which nobody waits for, or one that another gateway answers
        try:
            node, request = self._read(delivery)
        except DecodeError as error:
            self._refuse(delivery.topic, error)
            return
        with self._turn:
            if self._queue.put(node, request):
                self._turn.notify()
            else:
                self.counters["blob_dropped"] += 1

    def _read(self, delivery: Delivery) -> tuple[str, BlobRequest]:
        fields = BLOB_GET.match(delivery.topic)
        if fields is None:
            raise DecodeError(f"{delivery.topic} is no topic for blob requests")
        request = BlobRequest.from_json(delivery.payload)
        target = BLOB_DATA.match(request.reply_to)
        if target is None or (target["site"], target["node"]) != (self._site, fields["node"]):
            raise DecodeError(f"{fields['node']} wants a blob sent to {request.reply_to}, which is not its own topic")
        return fields["node"], request

    def _refuse(self, topic: str, error: SplitbusError) -> None:
        self.counters["blob_refused"] += 1
        log.warning("refused a blob request on %s: %s", topic, error)
        now = time.monotonic()
        if now - self._alert_at < ALERT_SECONDS:
            return
        self._alert_at = now
        alert = Alert(node=self._node, what="blob_refused", reason=str(error), topic=topic)
        self._bus.publish(ALERT.at(self._site, node=self._node), alert.to_json(), qos=ALERT.qos)

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._turn:
                request = self._queue.pop()
                if request is None:
                    self._turn.wait()
                    continue
            try:
                with self._pulse.working(f"reading blob {request.sha256[:12]}"):
                    self._answer(request)
            except Exception:  # whatever one request does, the next is answered
                self.counters["blob_failed"] += 1
                log.exception("could not answer the request for blob %s", request.sha256)

    def _answer(self, request: BlobRequest) -> None:
        packet = encode(self._piece(request))
        if self._closing.wait(self._pace.delay(len(packet), time.monotonic())):
            return
        try:
            for part in split(packet, number=next(self._numbers), limit=self._bus.max_packet_bytes):
                if not self._bus.publish(request.reply_to, bytes(part), qos=BLOB_DATA.qos):
                    self.counters["blob_unsent"] += 1
                    return
        except PayloadTooLargeError as error:
            self._refuse(request.reply_to, error)
            return
        self.counters["blob_pieces"] += 1
        self.counters["blob_bytes"] += len(packet)

    def _piece(self, request: BlobRequest) -> BlobPiece:
        try:
            total = self._store.size(request.sha256)
            data = self._store.read(request.sha256, request.offset, request.length)
        except BlobError as error:
            self.counters["blob_missing"] += 1
            log.warning("a node asked for a blob that is not here: %s", error)
            return BlobPiece(request.sha256, 0, 0, detail=f"the gateway does not have blob {request.sha256}")
        return BlobPiece(request.sha256, min(request.offset, total), total, data)
