"""What tests of offline planning are given: a model file, profiles of it as files, and options that name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests import models
from tests.gateway.scripted import pyramid

from splitbus_cli.plan_models import find_model
from splitbus_gateway.config import GatewayConfig
from splitbus_gateway.graph import load_graph, useful_cuts
from splitbus_gateway.profile_file import ProfileFile
from splitbus_gateway.records import ModelRecord
from splitbus_runtime.agent import default_store
from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.codecs import known_codecs
from splitbus_schemas.ids import model_key
from splitbus_schemas.limits import MAX_PACKET_BYTES
from splitbus_schemas.messages import NodeProfile


def model_file(folder: Path, name: str = "person.onnx") -> Path:
    """A small model whose tensors get ever smaller, so that some cut is worth while."""
    return models.save(pyramid(), folder, name)


def measure_quietly(model: Path) -> None:
    """Put the model in the cache with the times of a quiet machine: plans of tests must not depend on load."""
    find_model(str(model), GatewayConfig(), None)
    for path in (default_store("planned") / "models").iterdir():
        record = ModelRecord.model_validate_json(path.read_bytes())
        sizes = [size.model_copy(update={"encode_ms": 0.02, "decode_ms": 0.02}) for size in record.sizes]
        path.write_text(record.model_copy(update={"whole_ms": 1.0, "sizes": sizes}).model_dump_json(exclude_none=True))


def profile_of(model: Path, whole_ms: float) -> NodeProfile:
    """A profile in which all blocks take the same time."""
    graph = load_graph(model)
    cuts = [*(cut.index for cut in useful_cuts(graph).cuts), graph.steps]
    return NodeProfile(
        node="x", boot="b", model=graph.sha256, cuts=cuts, block_ms=[whole_ms / len(cuts)] * len(cuts),
        spread_ms=[0.0] * len(cuts), whole_ms=whole_ms, runs=9,
    )  # fmt: skip


def write_profile(model: Path, target: Path, whole_ms: float) -> Path:
    """The same as the file that `splitbus profile` writes."""
    found = ProfileFile(
        model_name=model.name, machine="a machine", threads=1, made="2026-01-01T00:00:00+00:00",
        profile=profile_of(model, whole_ms),
    )  # fmt: skip
    target.write_bytes(found.to_json())
    return target


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, in place of the real one."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def given(folder: Path, *, device_ms: float = 400.0, edge_ms: float = 20.0, link: str = "20mbit/10ms") -> list[str]:
    """A camera and an edge: `splitbus plan`'s arguments but the command, the model first."""
    model = model_file(folder)
    measure_quietly(model)
    device, edge = (
        write_profile(model, folder / name, ms) for name, ms in (("camera.json", device_ms), ("box.json", edge_ms))
    )
    return [str(model), *nodes(device, edge), "--link", f"device:edge1={link}"]


def nodes(device: Path, edge: Path) -> Sequence[str]:
    """The options for a camera and an edge."""
    return ["--profile", f"device={device}", "--profile", f"edge1={edge}"]


def tell_site(
    bus: MqttBus, site: str, model: Path, *, device: str, device_ms: float = 400.0, edge_ms: float = 20.0
) -> None:
    """Say, retained, all that the gateway plans by: of a camera, an edge and the link between them."""

    def say(kind: topics.Topic, message: m.Message, **names: str) -> None:
        bus.publish(kind.at(site, **names), message.to_json(), qos=1, retain=True)

    tiers: tuple[tuple[str, m.Tier, float], ...] = ((device, "device", device_ms), ("edge1", "edge", edge_ms))
    for name, tier, whole_ms in tiers:
        profile = profile_of(model, whole_ms).model_copy(update={"node": name, "boot": "b1"})
        say(topics.STATUS, m.NodeStatus(state="ready", node=name, boot="b1", tier=tier), node=name)
        caps = m.NodeCaps(
            node=name, boot="b1", tier=tier, cores=1, memory_mb=1, codecs=known_codecs(),
            max_packet_bytes=MAX_PACKET_BYTES,
        )  # fmt: skip
        say(topics.CAPS, caps, node=name)
        say(topics.PROFILE, profile, node=name, model=model_key(profile.model))
    report = m.LinkReport(node=device, peer="edge1", rtt_ms=10.0, up_mbit=20.0, down_mbit=20.0, confidence=0.9)
    say(topics.LINK, report, node=device, peer="edge1")
