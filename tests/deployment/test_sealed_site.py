"""A whole site that seals, with the shipped rules of the broker and the real programs; and a thief of a password."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.brokers import BrokerFactory
from tests.deployment.machines import Camera, Machines, Operator, until
from tests.deployment.site import SITE, Site
from typer.testing import CliRunner

from splitbus_cli.app import app
from splitbus_gateway.signing import PUBLIC_FILE, load_signer
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Decision, NodeStats, NodeStatus
from splitbus_schemas.packet import decode, pack_tensor
from splitbus_schemas.packet_types import Job, Result, Sealed
from splitbus_schemas.parts import Assembler
from splitbus_schemas.topics import DECISION, STATS, STATUS

pytestmark = pytest.mark.broker


class Owner:
    """The gateway's owner, at the command line."""

    def __init__(self, state: Path, folder: Path) -> None:
        self._state, self._folder = state, folder

    def seal(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, ["seal", *arguments, "--state-dir", str(self._state)])
        assert result.exit_code == 0, result.output
        return result.stdout

    def key(self, node: str, *more: str) -> str:
        """A new key for the node, in a file as it should be."""
        given = json.loads(self.seal("add", node, "--json", *more))
        path = self._folder / f"{node}.seal"
        path.write_text(f"{given['seal_key']}\n")
        path.chmod(0o600)
        return str(path)


def counted(operator: Operator, node: str, what: str) -> int:
    stats = operator.newest(NodeStats, STATS.at(SITE, node=node))
    return stats.counters.get(what, 0) if stats else 0


def sealed_status(operator: Operator, node: str) -> bool:
    status = operator.newest(NodeStatus, STATUS.at(SITE, node=node))
    return status is not None and status.seal is not None


def needles(camera: Camera, frame: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[bytes]:
    """Stretches of what the camera's head makes of a frame, coded as its plan says; of the frame, if it is sent."""
    uplink = camera.session._uplink
    assert uplink is not None
    active = uplink.active
    assert active is not None
    assert active.plan.head is not None
    made = active.head.run({"x": frame}) if active.head is not None else [("x", frame, False)]
    coded = [bytes(pack_tensor(name, array, active.plan.head.coding).data) for name, array, _ in made]
    return [data[at : at + 12] for data in coded for at in range(0, len(data) - 12, 48)]


def test_a_site_seals_from_end_to_end(
    broker_factory: BrokerFactory, site: Site, machines: Machines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The list crosses the shipped rules, plans heed it, the broker carries nothing that can be read, and a recorded
    frame is run once whoever plays it again; a revoked camera is planned alone."""
    load_signer(machines.state)
    owner = Owner(machines.state, tmp_path)
    monkeypatch.setenv("SPLITBUS_GATEWAY_KEY", str(machines.state / PUBLIC_FILE))
    with broker_factory(setup=site.setup()) as broker, machines.operator(broker) as operator:
        machines.gateway(broker, "password")
        monkeypatch.setenv("SPLITBUS_SEAL_KEY", owner.key("edge1", "--worker"))
        machines.worker("edge1", "edge", broker, "password")
        monkeypatch.setenv("SPLITBUS_SEAL_KEY", owner.key("cam-a"))
        with machines.camera("cam-a", broker, "password") as camera:
            camera.follow("cam-a", "edge1")
            assert sealed_status(operator, "edge1")
            assert sealed_status(operator, "cam-a")
            frame = np.random.default_rng(11).standard_normal(camera.session.get_inputs()[0].shape).astype(np.float32)
            known = needles(camera, frame)
            camera.session.run(None, {"x": frame})
            answer = camera.session.last_answer
            assert answer is not None
            assert answer.route == ("cam-a", "edge1")
            until(lambda: any(f.endswith(answer.frame) for f in frames(operator)), "the frame was recorded")
            assert len(known) > 20
            carried = b"\0".join(delivery.payload for delivery in operator.heard())
            assert [needle for needle in known if any(needle) and needle in carried] == []
            recorded = operator.heard("job/edge1/cam-a")
            before = counted(operator, "edge1", "jobs")
            with site.client("cam-a").connected(broker.host, broker.port) as thief:
                for delivery in recorded:
                    assert thief.publish(delivery.topic, delivery.payload) == "Success"
            until(partial(counted, operator, "edge1", "replayed"), "edge1 counted the replay")
            assert before > 0
            owner.seal("revoke", "cam-a")
            camera.follow("cam-a")
            model = machines.record.model
            until(
                lambda: "does not know the key of cam-a" in blocked(operator, model),
                lambda: f"the plan says why: {blocked(operator, model)}",
            )


def frames(operator: Operator) -> list[str]:
    """The frames that were recorded on their way, all of them sealed."""
    assembler = Assembler()
    found = []
    for delivery in [*operator.heard("job/edge1/cam-a"), *operator.heard("reply/cam-a")]:
        arrival = assembler.feed(delivery.payload, 0.0)
        packet = decode(arrival.data) if arrival is not None else None
        assert not isinstance(packet, Job | Result)
        if isinstance(packet, Sealed):
            found.append(str(packet.clear.frame))
    return found


def blocked(operator: Operator, model: str) -> str:
    decision = operator.newest(Decision, DECISION.at(SITE, node="cam-a", model=model_key(model)))
    return "; ".join(decision.blocked) if decision else ""
