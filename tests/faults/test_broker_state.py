"""A broker that comes back and knows nothing: sessions, subscriptions and everything retained are gone."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from tests.brokers import BrokerFactory
from tests.e2e.site import CAMERA, CLOUD, EDGE, MODEL, Watch, wait_for
from tests.faults.record import Record, runs
from tests.faults.scene import Scene, staged

from splitbus_runtime.bus import Will
from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas import messages as m
from splitbus_schemas import topics

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

SERVICE_SECONDS = 5.0
"""From the broker's return until everything retained is there again."""

RESTORED_SECONDS = 2.0
"""From the broker's return until the best plan answers frames."""

PRESENCE_SECONDS = 3.0
"""From a node's death, or an old will's arrival, until its status says what is true."""


@pytest.fixture(scope="module")
def scene(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with broker_factory("persistence false") as broker, staged(broker, tmp_path_factory.mktemp("scene")) as scene:
        scene.play()
        scene.settle_in()
        yield scene


def retained(scene: Scene) -> dict[str, type[m.Message]]:
    """Everything that has to be retained while a camera runs a model."""
    site, nodes, workers = scene.name, (CAMERA, EDGE, CLOUD), (EDGE, CLOUD)
    return {
        topics.MODEL.at(site, name=MODEL): m.ModelCard,
        topics.PLAN.at(site, node=CAMERA, model=scene.key): m.Plan,
        topics.DECISION.at(site, node=CAMERA, model=scene.key): m.Decision,
        topics.PLAN_STATE.at(site, node=CAMERA, model=scene.key): m.PlanState,
        topics.PEERS.at(site, node=CAMERA): m.Peers,
        **{topics.STATUS.at(site, node=node): m.NodeStatus for node in (*nodes, "gateway")},
        **{topics.CAPS.at(site, node=node): m.NodeCaps for node in nodes},
        **{topics.SLICES.at(site, node=node): m.SliceState for node in nodes},
        **{topics.PROFILE.at(site, node=node, model=scene.key): m.NodeProfile for node in nodes},
        **{topics.WORK.at(site, node=node): m.NodeWork for node in workers},
    }


def missing(scene: Scene, newcomer: Watch) -> list[str]:
    return [topic for topic, kind in retained(scene).items() if newcomer.last(kind, topic) is None]


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_a_broker_forgets_everything(scene: Scene, record: Record, way: str) -> None:
    """Nothing is persistent here, so an orderly stop forgets as much as a power cut does."""
    first, took = time.monotonic(), list[float]()
    for _ in range(runs(4)):
        scene.settle_in()
        scene.broker.kill() if way == "killed" else scene.broker.stop()
        time.sleep(1.0)
        scene.broker.start()
        back = time.monotonic()
        took.append(scene.restored(after=back, route=(EDGE,)))
        newcomer = Watch(scene.broker, scene.name)
        try:
            wait_for("all state", lambda: not missing(scene, newcomer), SERVICE_SECONDS)  # noqa: B023 - asked in this turn
        except AssertionError:
            pytest.fail(f"not retained again: {missing(scene, newcomer)}")
        finally:
            newcomer.bus.close()
    verdict = scene.verdict(since=first)
    record(f"broker {way} in mid-stream, nothing persistent", len(took), [1e3 * s for s in took], verdict.frames,
           len(verdict.lost), len(verdict.doubled), len(verdict.late), "from its return to the best plan")  # fmt: skip
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert max(took) <= RESTORED_SECONDS, f"{took}\n{scene.report()}"
    assert scene.crashed() == []


def test_an_old_will_does_not_stand_for_a_new_session(scene: Scene, record: Record) -> None:
    """The will of a start that a broker took for alive comes after the next start's birth; the truth is told again."""
    scene.settle_in()
    first, took = time.monotonic(), list[float]()
    for boot in range(runs(5)):
        ghost = MqttBus(
            scene.broker.host, scene.broker.port, client_id=f"ghost-{boot}",
            will=Will(topics.STATUS.at(scene.name, node=EDGE),
                      m.NodeStatus(state="lost", node=EDGE, boot=f"dead{boot:04}", tier="edge").to_json()),
        )  # fmt: skip
        ghost.wait_connected(10)
        mark = scene.watch.mark
        vanish(ghost)
        begun = time.monotonic()
        wait_for("the old will", lambda: scene.has_said(EDGE, "lost", mark), 5)  # noqa: B023 - asked in this turn
        wait_for("the truth", lambda: scene.states(EDGE, mark)[-1] == "ready", 5)  # noqa: B023 - asked in this turn
        took.append(time.monotonic() - begun)
        ghost.close()
    verdict = scene.verdict(since=first)
    record(
        "an old will after a new birth",
        len(took),
        [1e3 * s for s in took],
        verdict.frames,
        len(verdict.lost),
        len(verdict.doubled),
        len(verdict.late),
        "from the will to the true status; frames went on over the bus",
    )
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert verdict.local == 0, scene.report()
    assert max(took) <= PRESENCE_SECONDS


@pytest.mark.parametrize("node", ["edge1", "gateway", CAMERA])
def test_a_death_is_told_in_time(scene: Scene, record: Record, node: str) -> None:
    """By the will; a camera's waits two seconds, because a short loss of the network is no death."""
    took: list[float] = []
    first = time.monotonic()
    for _ in range(runs(2)):
        scene.settle_in()
        mark = scene.watch.mark
        begun = time.monotonic()
        scene.kill(node)
        wait_for(f"{node} is told lost", lambda: scene.has_said(node, "lost", mark), 10)  # noqa: B023 - asked in this turn
        took.append(time.monotonic() - begun)
        revive(scene, node)
        wait_for(f"{node} is told ready", lambda: scene.states(node, mark)[-1] == "ready", 30)  # noqa: B023 - the same
    scene.settle_in()
    verdict = scene.verdict(since=first if node != CAMERA else time.monotonic() - 2)
    record(f"{node} dies", len(took), [1e3 * s for s in took], verdict.frames, len(verdict.lost),
           len(verdict.doubled), len(verdict.late), "from the kill to the true status")  # fmt: skip
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert max(took) <= PRESENCE_SECONDS


def vanish(bus: MqttBus) -> None:
    """Without a goodbye: the broker publishes the will."""
    client = bus._client
    sock = client.socket() if client is not None else None
    assert isinstance(sock, socket.socket)
    sock.shutdown(socket.SHUT_RDWR)


def revive(scene: Scene, node: str) -> None:
    if node == CAMERA:
        scene.notes(CAMERA).unlink()
        scene.play()
    elif node == "gateway":
        scene.start_gateway()
    else:
        scene.start_worker(node, "edge")
