"""Packets over a bus: cut to the broker's limit, sent as trains when a link is to be measured, put together again."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from splitbus_runtime.bus import Bus, Delivery, UserProperties
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.ids import model_key
from splitbus_schemas.packet import decode, encode
from splitbus_schemas.packet_types import Packet
from splitbus_schemas.parts import Arrival, Assembler, split

CHUNK_BYTES: Final = 512 * 1024
"""paho copies what is left of a message at every partial write; brokers store a message before they forward it."""

MAX_TOPICS: Final = 256
"""Topics under reassembly at once: one for each device that sends to a worker."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A packet as it came in: when it was complete, and the train that brought it."""

    topic: str
    packet: Packet
    at: float
    """time.monotonic() of this node."""
    bytes: int
    train_bytes: int
    train_s: float


Accept: TypeAlias = Callable[[Parcel], None]
Refuse: TypeAlias = Callable[[str, DecodeError], None]


class PacketPort:
    """Sends and receives packets on one connection. Damaged ones go to `refuse` and no further."""

    def __init__(self, bus: Bus, refuse: Refuse) -> None:
        self.bus = bus
        self._refuse = refuse
        self._numbers = itertools.count(random.getrandbits(62))
        self._assemblers: OrderedDict[str, Assembler] = OrderedDict()
        self._lock = threading.Lock()

    def send(
        self,
        topic: str,
        packet: Packet,
        *,
        train: bool = False,
        user: UserProperties = (),
        expiry_s: int | None = None,
    ) -> int:
        """Bytes handed to the broker; 0 when it is not there. Raises PayloadTooLargeError.

        Of a packet in parts the first one carries `user`: paho copies a whole message for each property it reads.
        """
        data = encode(packet)
        limit = min(CHUNK_BYTES, self.bus.max_packet_bytes)
        for payload in split(data, number=next(self._numbers), limit=limit, train=train):
            if not self.bus.publish(topic, bytes(payload), user=user, expiry_s=expiry_s):
                return 0
            user = ()
        return len(data)

    def receive(self, pattern: str, accept: Accept, *, wanted: Callable[[str], bool] = lambda _topic: True) -> None:
        """Call `accept` with every sound packet under `pattern`, on the bus's thread.

        `wanted` is asked of a message's topic before it is read.
        """

        def take(delivery: Delivery) -> None:
            if wanted(delivery.topic):
                self._take(delivery, accept)

        self.bus.subscribe(pattern, take)

    def _take(self, delivery: Delivery, accept: Accept) -> None:
        if delivery.retain:
            return  # retained data reaches new subscribers out of time (M7 in the list of pitfalls)
        now = time.monotonic()
        try:
            arrival = self._feed(delivery, now)
            if arrival is None:
                return
            packet = decode(arrival.data)
        except DecodeError as error:
            self._refuse(delivery.topic, error)
            return
        accept(Parcel(delivery.topic, packet, now, len(arrival.data), arrival.train_bytes, arrival.train_s))

    def _feed(self, delivery: Delivery, now: float) -> Arrival | None:
        with self._lock:
            assembler = self._assemblers.get(delivery.topic)
            if assembler is None:
                assembler = self._assemblers[delivery.topic] = Assembler()
                if len(self._assemblers) > MAX_TOPICS:
                    self._assemblers.popitem(last=False)
            else:
                self._assemblers.move_to_end(delivery.topic)
            return assembler.feed(delivery.payload, now)


def job_facts(plan: str, epoch: int, model: str) -> UserProperties:
    """What a plain MQTT tool shows of a job: the plan that it follows, and its model's key in topics.

    Few, and the same for all frames of a plan: reading one costs the receiver up to 40 us, building them the sender.
    """
    return ("plan", f"{plan}/{epoch}"), ("model", model_key(model))
