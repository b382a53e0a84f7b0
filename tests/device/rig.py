"""A site around one camera: a gateway that does as the test says with real slices, workers real and false."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
from numpy.typing import NDArray
from tests.brokers import Broker

from splitbus_device import InferenceSession
from splitbus_gateway.blob_service import BlobService
from splitbus_gateway.graph import cut_at
from splitbus_gateway.registry import Registry
from splitbus_gateway.signing import Signer
from splitbus_gateway.slicing import SliceBook
from splitbus_runtime.bus import Delivery
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.settings import BrokerSettings
from splitbus_runtime.transport import PacketPort, Parcel
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.ids import model_key
from splitbus_schemas.packet_types import Job, Packet
from splitbus_worker.settings import WorkerConfig
from splitbus_worker.worker import Worker

Array = NDArray[Any]
Route = Sequence[tuple[str, int]]
"""Workers, and the cut at which the slice of each begins."""

CAMERA = "cam"
PATIENCE = 15.0
DEADLINE = 5.0
"""So long that only a failure meets it."""

T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T], seconds: float = PATIENCE) -> T:
    """The first value of `probe` that is true."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)
    return found


def plain(model: Path | bytes) -> ort.InferenceSession:
    """Onnxruntime with nothing of ours."""
    return ort.InferenceSession(model if isinstance(model, bytes) else str(model))


def made_up(session: Any, seed: int = 0, *, batch: int = 1) -> dict[str, Array]:
    """Inputs for a session, ours or onnxruntime's."""
    rng = np.random.default_rng(seed)
    dtypes = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
    return {
        info.name: rng.standard_normal([s if isinstance(s, int) else batch for s in info.shape]).astype(
            dtypes[info.type]
        )
        for info in session.get_inputs()
    }


def same(outputs: Sequence[Any], expected: Sequence[Any], tolerance: float = 0.0) -> None:
    """Same number, dtypes, shapes and values; to the last bit without a tolerance."""
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if tolerance:
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        else:
            assert ours.tobytes() == theirs.tobytes()


class Site:
    """A site of its own at a broker: registry, slices, blob service, and everything that nodes say."""

    def __init__(self, broker: Broker, folder: Path, *, name: str = "", signer: Signer | None = None) -> None:
        self.broker, self.folder = broker, folder
        self.name = name or f"d{secrets.token_hex(4)}"
        self.registry = Registry(folder / "gateway", samples=1, max_input_ratio=100.0)
        self.signer = signer or Signer()
        self.book = SliceBook(self.registry, signer=self.signer)
        self.heard: list[Delivery] = []
        self.bus = MqttBus(broker.host, broker.port, client_id=f"gateway-{self.name}")
        self.bus.subscribe(f"{topics.ROOT}/{self.name}/node/#", self.heard.append, qos=1)
        self.bus.wait_connected(PATIENCE)
        self.blobs = BlobService(self.bus, self.registry.store, site=self.name, node="gateway")
        self._epoch = 0

    def close(self) -> None:
        self.blobs.close()
        self.bus.close()

    # What the gateway says

    def register(self, path: Path, name: str = "model", **options: Any) -> m.ModelCard:
        card = self.registry.add(name, path, **options)
        self._say(topics.MODEL, card, name=name)
        return card

    def slice_id(self, card: m.ModelCard, first: int, last: int, codecs: tuple[str, str] = ("raw", "raw")) -> str:
        made = self.book.slice_for(card.model, first, last, *codecs)
        assert made is not None
        return made[0]

    def plan(
        self,
        card: m.ModelCard,
        *routes: Route,
        codec: str = "raw",
        device: str = CAMERA,
        predicted_ms: float = 20.0,
        **fields: Any,
    ) -> m.Plan:
        """A plan for these routes, which begin at the same cut; without any, all is local."""
        self._epoch += 1
        cut = routes[0][0][1] if routes else 0
        made = self.book.slice_for(card.model, 0, cut, "raw", codec) if routes else None
        head = m.PlanStage(
            node=device, tier="device", slice=made[0] if made else None, coding=CODECS[codec].coding
        )  # fmt: skip
        plan = m.Plan(
            plan=f"p{self._epoch}",
            epoch=self._epoch,
            device=device,
            model=card.model,
            name=card.name,
            head=head if routes else None,
            routes=[self._stages(card, route, codec) for route in routes],
            cuts=[self._cut(card, first, codec) for _, first in routes[0]] if routes else [],
            predicted_ms=predicted_ms,
            reason="the test says so",
        )
        return plan.model_copy(update=fields)

    def publish(self, plan: m.Plan, to: str = CAMERA) -> m.Plan:
        self._say(topics.PLAN, plan, node=to, model=model_key(plan.model))
        return plan

    def remove_plan(self, card: m.ModelCard) -> None:
        topic = topics.PLAN.at(self.name, node=CAMERA, model=model_key(card.model))
        self.bus.publish(topic, b"", qos=1, retain=True)

    def say_status(self, node: str, state: str, boot: str = "b1", pace: float | None = None) -> None:
        status = m.NodeStatus.model_validate({"state": state, "node": node, "boot": boot, "tier": "edge", "pace": pace})
        self._say(topics.STATUS, status, node=node)

    def _cut(self, card: m.ModelCard, index: int, codec: str) -> m.PlanCut:
        tensors = cut_at(self.registry.graph(card.model), index).tensors
        return m.PlanCut(index=index, codec=codec, tensors=[tensor.name for tensor in tensors])

    def _stages(self, card: m.ModelCard, route: Route, codec: str) -> list[m.PlanStage]:
        ends = [*(first for _, first in route[1:]), card.nodes]
        stages = []
        for (node, first), last in zip(route, ends, strict=True):
            codecs = (codec, "raw" if last == card.nodes else codec)
            stages.append(
                m.PlanStage(
                    node=node,
                    tier="edge",
                    slice=self.slice_id(card, first, last, codecs),
                    coding=CODECS[codecs[1]].coding,
                )
            )
        return stages

    def _say(self, kind: topics.Topic, message: m.Message, **fields: str) -> None:
        topic = kind.at(self.name, **fields)
        assert self.bus.publish(topic, self.signer.seal(topic, message), qos=1, retain=True)

    # What nodes say

    def said(self, kind: type[m.M], topic: str) -> list[m.M]:
        return [kind.from_json(d.payload) for d in list(self.heard) if d.topic == topic and d.payload]

    def plan_states(self, card: m.ModelCard, device: str = CAMERA) -> list[tuple[str, str]]:
        """Plan and state, as the camera told them."""
        topic = topics.PLAN_STATE.at(self.name, node=device, model=model_key(card.model))
        return [(state.plan, state.state) for state in self.said(m.PlanState, topic)]

    def counters(self, node: str = CAMERA) -> Mapping[str, int]:
        stats = self.said(m.NodeStats, topics.STATS.at(self.name, node=node))
        return stats[-1].counters if stats else {}

    def streams(self, card: m.ModelCard) -> list[m.StreamStats]:
        return self.said(m.StreamStats, topics.STREAM.at(self.name, node=CAMERA, model=model_key(card.model)))

    def alerts(self, node: str = CAMERA) -> list[str]:
        return [alert.reason for alert in self.said(m.Alert, topics.ALERT.at(self.name, node=node))]

    # Who is there

    @contextlib.contextmanager
    def worker(self, node: str = "edge1", *slices: str, **settings: Any) -> Iterator[Worker]:
        """A real worker in this process, which reads the gateway's store, with `slices` warm."""
        worker = Worker(self.worker_config(node, **settings))
        try:
            for slice_id in slices:
                worker.agent.shelf.load(slice_id)
            worker.start()
            wait_for(f"{node} is ready", lambda: worker.ready)
            yield worker
        finally:
            worker.stop()

    def worker_config(self, node: str, **settings: Any) -> WorkerConfig:
        return WorkerConfig.model_validate(
            {
                "site": self.name,
                "node": node,
                "broker": BrokerSettings.of(self.broker.url),
                "state_dir": self.folder / "gateway" / "blobs",
                "threads": 1,
                **settings,
            }
        )

    def session(self, model: Any, **options: Any) -> InferenceSession:
        settings: dict[str, Any] = {
            "broker": self.broker.url,
            "site": self.name,
            "device": CAMERA,
            "deadline": DEADLINE,
            "store": self.folder / "camera",
        }
        return InferenceSession(model, **(settings | options))

    def follow(self, session: InferenceSession, plan: m.Plan) -> m.Plan:
        """Publish the plan and wait until the camera follows it."""
        self.publish(plan, plan.device)
        wait_for(f"{plan.device} follows {plan.plan}", lambda: session.plan == plan.plan)
        return plan

    def stage_slices(self, plan: m.Plan, node: str = "edge1") -> list[str]:
        return [s.slice for route in plan.routes for s in route if s.node == node and s.slice is not None]


class FalseWorker:
    """Takes jobs and answers as the test says: packets, raw bytes, or nothing."""

    def __init__(self, site: Site, node: str, answer: Callable[[Job], Sequence[Packet | bytes]] = lambda _: ()) -> None:
        self.jobs: list[Job] = []
        self._answer = answer
        self._bus = MqttBus(site.broker.host, site.broker.port, client_id=f"{node}-{site.name}")
        self._port = PacketPort(self._bus, lambda _topic, _error: None)
        self._port.receive(topics.JOB.at(site.name, node=node, device="+"), self._take)
        self._bus.wait_connected(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def send(self, job: Job, packet: Packet | bytes) -> None:
        if isinstance(packet, bytes):
            self._bus.publish(job.reply_to, packet)
        else:
            self._port.send(job.reply_to, packet)

    def _take(self, parcel: Parcel) -> None:
        if isinstance(parcel.packet, Job):
            self.jobs.append(parcel.packet)
            for packet in self._answer(parcel.packet):
                self.send(parcel.packet, packet)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}
