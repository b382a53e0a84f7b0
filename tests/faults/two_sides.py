"""A site with two brokers that a bridge joins over a line that can be cut: a gateway, a worker, a camera at each."""

from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.brokers import Broker, BrokerFactory
from tests.e2e.site import CAMERA, CLOUD, EDGE, Watch, wait_for
from tests.faults.frames import Frames
from tests.faults.plant import FAR, SETTINGS, Plant

from splitbus_demo.relay import Relay
from splitbus_gateway.signing import load_signer
from splitbus_runtime.bus import Delivery
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.bridging import SETTINGS as BRIDGE
from splitbus_schemas.bridging import Side, bridge_lines

NAME: Final = "bridge-home"
CAMERA_BEYOND, GATEWAY, GATEWAY_BEYOND = "camera2", "gateway", "gateway2"
FPS_EACH: Final = 5.0
DEADLINE_EACH_S: Final = 1.0
"""Two cameras, two brokers and four other programs share the machine, and all of them start at once."""
CAMERAS: Final = (CAMERA, CAMERA_BEYOND)
NEAR_SIDE: Final = Side((GATEWAY,), (EDGE,), (CAMERA,))
FAR_SIDE: Final = Side((GATEWAY_BEYOND,), (CLOUD,), (CAMERA_BEYOND,))

TLS_LINES: Final = ("bridge_cafile", "bridge_certfile", "bridge_keyfile", "bridge_insecure", "bridge_tls_version", "#")


def bridge(relay: Relay, site: str) -> str:
    """bridge-gateways.conf as shipped, less its certificates, for this site and over this line."""
    lines = [line for line in BRIDGE.splitlines() if not line.startswith(TLS_LINES)]
    lines = [f"address {relay.host}:{relay.port}" if line.startswith("address") else line for line in lines]
    return "\n".join([*lines, bridge_lines(NEAR_SIDE, FAR_SIDE, site=site, name=NAME)])


@dataclass
class TwoSides(Plant):
    """`broker` is the edge's, with the gateway that leads first; `far` the other one, over `bridge`."""

    far_broker: Broker = field(kw_only=True)
    bridge: Relay = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.beyond = Watch(self.far_broker, self.name, ("node", "ctl", "gateway"))
        self.here = Watch(self.broker, self.name, ("node", "ctl", "gateway"))
        self.joined_at: list[float] = []
        """When the bridge was connected, by its word at the far broker."""
        self.beyond.bus.subscribe(f"$SYS/broker/connection/{NAME}/state", self._note_state, qos=1)

    def _note_state(self, delivery: Delivery) -> None:
        if delivery.payload == b"1":
            self.joined_at.append(time.monotonic())

    def set_up(self) -> None:
        """The gateways' settings and folders: one registry, one key, a side each."""
        self.register()
        load_signer(self.state_dir)
        for node, side in ((GATEWAY, "edge"), (GATEWAY_BEYOND, "cloud")):
            folder = self.folder / f"{node}-state"
            shutil.copytree(self.state_dir, folder)
            (self.folder / f"{node}.toml").write_text(
                f'site = "{self.name}"\nnode = "{node}"\nstate_dir = "{folder}"\n{SETTINGS}'
                f'[lease]\nside = "{side}"\nbridge = "{NAME}"\n'
            )

    def start_side(self, gateway: str) -> None:
        broker = self.broker if gateway == GATEWAY else self.far_broker
        at = [f"--broker={broker.url}", f"--site={self.name}"]
        self.start(gateway, "gateway", "--config", self.folder / f"{gateway}.toml", *at)

    def start_all(self) -> None:
        """The edge's gateway first, so that it leads; workers start while the models are added."""
        self.start_worker(EDGE, "edge")
        self.start_worker(CLOUD, "cloud", f"--broker={self.far_broker.url}")
        self.set_up()
        self.start_side(GATEWAY)
        wait_for("the edge leads", lambda: self.leader() == GATEWAY)
        self.start_side(GATEWAY_BEYOND)
        wait_for("the other stands by", lambda: self.role(GATEWAY_BEYOND).startswith("stands by for gateway"))
        self.wait_ready(EDGE, CLOUD)
        self.start_camera(CAMERA, at=self.relay)
        self.start_camera(CAMERA_BEYOND, at=self.far_broker)

    def restore(self) -> None:
        """Return once the bridge carries, the edge's gateway leads, the other stands by, and frames fly."""
        self.bridge.restore()
        for gateway in (GATEWAY, GATEWAY_BEYOND):
            if gateway not in self.processes:
                self.start_side(gateway)
        if self.leader() == GATEWAY_BEYOND:
            self.strike(GATEWAY_BEYOND)
        self.wait("the edge leads", lambda: self.leader() == self.leader(self.beyond) == GATEWAY, 30)
        self.wait("the other stands by", lambda: self.role(GATEWAY_BEYOND).startswith("stands by for gateway"), 30)
        self.settle()

    # What is to be seen

    def frames_of(self, camera: str) -> Frames:
        return next(one for one in self.frames if one.path.stem == camera)

    def lease(self, side: Watch | None = None) -> m.Lease | None:
        """The lease that was said last, at the edge unless another side is meant."""
        return (side or self.here).last(m.Lease, topics.LEASE.at(self.name))

    def leases_beyond(self, since: int) -> list[m.Lease]:
        """What was said of the lease at the far broker since that mark."""
        return self.beyond.all(m.Lease, topics.LEASE.at(self.name), since)

    def leader(self, side: Watch | None = None) -> str:
        lease = self.lease(side)
        return lease.node if lease and lease.state == "held" else ""

    def role(self, gateway: str) -> str:
        """As the gateway says at its own broker."""
        side = self.here if gateway == GATEWAY else self.beyond
        status = side.last(m.NodeStatus, topics.STATUS.at(self.name, node=gateway))
        return (status.reason or "") if status else ""

    def epochs(self, side: Watch, camera: str) -> tuple[int, int]:
        """Of the plan that stands at this broker, and of the one that the camera says it follows."""
        plan = side.last(m.Plan, topics.PLAN.at(self.name, node=camera, model=self.key))
        state = side.last(m.PlanState, topics.PLAN_STATE.at(self.name, node=camera, model=self.key))
        return plan.epoch if plan else 0, state.epoch if state else -1

    def agrees(self) -> bool:
        """Whether both sides know one term, and for each camera one plan, which it follows."""
        leases = [self.lease(side) for side in (self.here, self.beyond)]
        one_term = len({lease.term for lease in leases if lease and lease.state == "held"}) == 1
        return one_term and all(
            len({*self.epochs(self.here, camera), *self.epochs(self.beyond, camera)}) == 1 for camera in CAMERAS
        )

    def wait(self, what: str, probe: Callable[[], object], seconds: float) -> float:
        """When it came true."""
        self.log_of_frames.wait(what, lambda: bool(probe()), seconds, self.tale)
        return time.monotonic()

    def settle(self, seconds: float = 60.0) -> None:
        """Return once both cameras are served over the bus, and both sides agree."""
        for camera in CAMERAS:
            frames = self.frames_of(camera)
            frames.wait(f"{camera} is served", functools.partial(self._served, frames), seconds, self.tale)
        self.wait("both sides agree", self.agrees, seconds)

    @staticmethod
    def _served(frames: Frames) -> bool:
        newest = frames.since(time.monotonic() - 1.0)[-5:]
        return len(newest) == 5 and not any(one.is_local for one in newest)

    def tale(self) -> str:
        lines = [super().tale()]
        lines += [f"lease {self.lease(side)}; plans {[self.epochs(side, one) for one in CAMERAS]}"
                  for side in (self.here, self.beyond)]  # fmt: skip
        lines += [f"{one}: {self.role(one)}" for one in (GATEWAY, GATEWAY_BEYOND)]
        return "\n".join(lines)

    def close(self) -> None:
        super().close()
        for side in (self.here, self.beyond):
            side.bus.close()


@contextlib.contextmanager
def two_sides(broker_factory: BrokerFactory, folder: Path, seed: int) -> Iterator[TwoSides]:
    """Everything runs, and both cameras are served."""
    name = f"f{secrets.token_hex(4)}"
    with broker_factory() as far, Relay((far.host, far.port), FAR) as line, broker_factory(bridge(line, name)) as near:
        site = TwoSides(
            near, folder, name, seed=seed, fps=FPS_EACH, deadline_s=DEADLINE_EACH_S, far_broker=far, bridge=line
        )
        try:
            site.start_all()
            site.settle()
            yield site
        finally:
            line.restore()
            site.close()
