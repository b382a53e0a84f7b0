"""A site whose frames are sealed: keys as `splitbus seal add` makes them, the signed list, and a thief."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from tests.brokers import Broker
from tests.device.rig import CAMERA, Site, wait_for

from splitbus_device import InferenceSession
from splitbus_gateway.key_book import retired, revoked, with_key, with_policy
from splitbus_runtime.bus import Delivery
from splitbus_runtime.hpke import Secret
from splitbus_runtime.keyring import Keyring
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.sealing import Sealer
from splitbus_runtime.transport import PacketPort
from splitbus_schemas import messages as m
from splitbus_schemas.packet import decode
from splitbus_schemas.packet_types import Packet
from splitbus_schemas.parts import Assembler
from splitbus_schemas.seal_keys import write_secret
from splitbus_schemas.topics import KEYS, ROOT, STATUS
from splitbus_worker.worker import Worker


@dataclass
class SealedSite:
    """The gateway's side of sealing; `site` has a signer."""

    site: Site
    keys: m.KeyList = field(default_factory=lambda: m.KeyList(epoch=0))
    secrets: dict[str, str] = field(default_factory=dict)

    def enrol(self, node: str, *, listed: bool = True) -> str:
        """A new key for the node, in the list unless it is a stranger's; gives what goes on the node."""
        secret = Secret.generate()
        self.secrets[node] = write_secret(secret.data)
        if listed:
            self.keys = with_key(self.keys, node, "device" if node.startswith("cam") else "worker", secret.public, 0)
            self.publish()
        return self.secrets[node]

    def retire(self, node: str) -> None:
        self.keys = retired(self.keys, node, 0)
        self.publish()

    def revoke(self, node: str) -> None:
        self.keys = revoked(self.keys, node, 0)
        self.publish()

    def require(self) -> None:
        self.keys = with_policy(self.keys, 0, required=True)
        self.publish()

    def publish(self) -> None:
        topic = KEYS.at(self.site.name)
        assert self.site.bus.publish(topic, self.site.signer.seal(topic, self.keys), qos=1, retain=True)

    @contextlib.contextmanager
    def worker(self, node: str, *slices: str) -> Iterator[Worker]:
        """A worker with its key that has the newest list."""
        settings = {"gateway_key": self.site.signer.public, "seal_key": self.secrets[node]}
        with self.site.worker(node, *slices, **settings) as worker:
            self.wait_known(worker)
            yield worker

    def wait_known(self, worker: Worker) -> None:
        """Until it has the newest list."""
        wait_for(f"{worker.node} has the list", lambda: keyring(worker).known.epoch == self.keys.epoch)

    def camera(self, model: Any, device: str = CAMERA, **options: Any) -> InferenceSession:
        folder = self.site.folder / f"{device}-store"
        given = {"device": device, "store": folder, "gateway_key": self.site.signer.public}
        return self.site.session(model, **given | {"seal_key": self.secrets[device]} | options)

    def wait_open(self, session: InferenceSession, *nodes: str) -> None:
        """Until the camera knows what these workers can open."""
        wait_for(f"{CAMERA} reaches {nodes}", lambda: all(sealer(session).reaches(node) for node in nodes))

    def era(self, node: str) -> str:
        told = self.site.said(m.NodeStatus, STATUS.at(self.site.name, node=node))
        return told[-1].seal.era if told and told[-1].seal else ""


def sealer(session: InferenceSession) -> Sealer:
    """A camera's."""
    assert session._uplink is not None
    found = session._uplink._envelope._sealer
    assert found is not None
    return found


def keyring(worker: Worker) -> Keyring:
    """A worker's."""
    found = worker._gate._keyring
    assert found is not None
    return found


class Thief:
    """Has every right at the broker: records all that it carries, and publishes what it likes."""

    def __init__(self, broker: Broker, site: str) -> None:
        self.recorded: list[Delivery] = []
        self._bus = MqttBus(broker.host, broker.port, client_id=f"thief-{site}")
        self._bus.subscribe(f"{ROOT}/{site}/#", self.recorded.append, qos=1)
        self._bus.wait_connected(10)
        self._port = PacketPort(self._bus, lambda _topic, _error: None)
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def on(self, part: str) -> list[Delivery]:
        """What was recorded on topics of that kind: `job`, `reply`."""
        return [delivery for delivery in list(self.recorded) if f"/{part}/" in delivery.topic]

    def packets(self, part: str) -> list[tuple[str, Packet]]:
        """The same, put together and decoded."""
        assembler = Assembler()
        found = []
        for delivery in self.on(part):
            arrival = assembler.feed(delivery.payload, 0.0)
            if arrival is not None:
                found.append((delivery.topic, decode(arrival.data)))
        return found

    def play(self, topic: str, payload: bytes) -> None:
        assert self._bus.publish(topic, payload)

    def send(self, topic: str, packet: Packet) -> None:
        assert self._port.send(topic, packet)
