"""A camera's end of the wire, reduced to its packets: sends jobs to workers, collects what comes back."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.worker.slices import MODEL, SmallSlice

from splitbus_runtime.bus import Bus, Delivery, MemoryBroker, Will
from splitbus_runtime.transport import PacketPort, Parcel
from splitbus_schemas.messages import NodeStats, NodeStatus, NodeWork, SliceState
from splitbus_schemas.packet import pack_tensor, unpack_tensor
from splitbus_schemas.packet_types import Echo, FrameId, Hop, Job, Packet, Refusal, Result, Spent, Tensor
from splitbus_schemas.topics import ALERT, JOB, REPLY, SLICES, STATS, STATUS, WORK
from splitbus_worker import Worker, WorkerConfig

Array = NDArray[Any]
PATIENCE = 10.0


class Camera:
    """Device `name` on a bus."""

    def __init__(self, bus: Bus, *, site: str, name: str = "cam", boot: str = "b1") -> None:
        self.site, self.name, self.boot = site, name, boot
        self.bus = bus
        self.refused: list[str] = []
        self.port = PacketPort(bus, lambda _topic, error: self.refused.append(str(error)))
        self.replies: queue.SimpleQueue[Parcel] = queue.SimpleQueue()
        self.reply_to = REPLY.at(site, node=name, boot=boot)
        self.port.receive(self.reply_to, self.replies.put)
        self._seq = 0

    def job(
        self,
        route: Sequence[tuple[str, str]],
        tensors: Mapping[str, Array] | Sequence[Tensor],
        *,
        coding: str = "raw",
        budget_us: int = 0,
        spent: Sequence[Spent] | None = None,
    ) -> Job:
        """The next frame, along `route` of (node, slice)."""
        self._seq += 1
        packed = (
            [pack_tensor(name, array, coding) for name, array in tensors.items()]
            if isinstance(tensors, Mapping)
            else tensors
        )
        return Job(
            frame=FrameId(self.name, self.boot, self._seq),
            model=MODEL,
            plan="p1",
            epoch=3,
            attempt=1,
            budget_us=budget_us,
            reply_to=self.reply_to,
            route=tuple(Hop(node, slice_id, coding) for node, slice_id in route),
            tensors=tuple(packed),
            spent=tuple(spent) if spent is not None else (Spent(self.name, run_us=5),),
        )

    def send(self, packet: Packet, *, to: str | None = None, under: str | None = None, train: bool = False) -> None:
        """To the first node of the route unless told otherwise."""
        node = to or (packet.route[0].node if isinstance(packet, Job) else "w1")
        assert self.port.send(JOB.at(self.site, node=node, device=under or self.name), packet, train=train)

    def parcel(self, patience: float = PATIENCE) -> Parcel:
        return self.replies.get(timeout=patience)

    def result(self) -> Result:
        packet = self.parcel().packet
        assert isinstance(packet, Result), packet
        return packet

    def refusal(self) -> Refusal:
        packet = self.parcel().packet
        assert isinstance(packet, Refusal), packet
        return packet

    def echo(self) -> Echo:
        packet = self.parcel().packet
        assert isinstance(packet, Echo), packet
        return packet

    def ask(self, job: Job) -> dict[str, Array]:
        """Send a job and give the answer's arrays."""
        self.send(job)
        return arrays(self.result())


class Observer:
    """What a worker says of itself, newest last."""

    def __init__(self, bus: Bus, *, site: str, node: str) -> None:
        self.status: list[NodeStatus] = []
        self.slices: list[SliceState] = []
        self.stats: list[NodeStats] = []
        self.alerts: list[bytes] = []
        self._bus, self._site, self._node = bus, site, node
        bus.subscribe(STATUS.at(site, node=node), lambda d: self.status.append(NodeStatus.from_json(d.payload)))
        bus.subscribe(SLICES.at(site, node=node), lambda d: self.slices.append(SliceState.from_json(d.payload)))
        bus.subscribe(STATS.at(site, node=node), lambda d: self.stats.append(NodeStats.from_json(d.payload)))
        bus.subscribe(ALERT.at(site, node=node), self._alert)

    def _alert(self, delivery: Delivery) -> None:
        self.alerts.append(delivery.payload)

    def wait_ready(self, piece: SmallSlice) -> None:
        wait_for(lambda: self.slices and piece.id in self.slices[-1].ready, f"{self._node} having its slice")

    def order(self, *slices: str) -> None:
        """What the gateway would ask for."""
        topic = WORK.at(self._site, node=self._node)
        self._bus.publish(topic, NodeWork(slices=list(slices)).to_json(), qos=1, retain=True)


def arrays(result: Result) -> dict[str, Array]:
    return {tensor.name: unpack_tensor(tensor) for tensor in result.tensors}


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {patience:g} s"
        time.sleep(0.005)


def memory_worker(broker: MemoryBroker, folder: Path, *slices: SmallSlice, **settings: Any) -> Worker:
    """A started worker on a broker in memory, with `slices` warm."""

    def dial(_client_id: str, _will: Will | None) -> Bus:
        return broker.connect()

    config = WorkerConfig.model_validate(
        {"site": "t", "node": "w1", "threads": 1, "state_dir": folder / "store"} | settings
    )
    worker = Worker(config, dial=dial)
    for piece in slices:
        piece.put(worker.agent.store)
        worker.agent.shelf.load(piece.id)
    worker.start()
    return worker


def ramp(size: int = 8) -> Array:
    return np.arange(size, dtype=np.float32)
