"""The programs in examples/ and every block of docs/camera.md, run as a reader would run them."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from tests import models
from tests.broker_setup import TLS, ServerTls
from tests.brokers import Broker, BrokerFactory, client_host
from tests.device.rig import Site, wait_for
from tests.device.sealed_site import SealedSite, Thief

from splitbus_device import Answer, InferenceSession
from splitbus_gateway.certificates import create_authority, issue_node, issue_server
from splitbus_gateway.signing import Signer
from splitbus_schemas.packet_types import Job, Sealed
from splitbus_schemas.topics import STATUS

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "camera.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
PYTHON = [block for kind, block in BLOCKS if kind == "python"]
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]


def run(*arguments: object, cwd: Path, **env: str) -> str:
    """What a program prints; it must end well."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("SPLITBUS_")}
    home = {"XDG_CACHE_HOME": str(cwd / "cache")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60, cwd=cwd, env=mine | home | env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def code(program: str) -> list[str]:
    """The program's lines without its docstring."""
    return (EXAMPLES / program).read_text().splitlines()[1:]


def test_one_line_changes_and_the_page_shows_it(tmp_path: Path) -> None:
    changed = [
        line for line in difflib.ndiff(code("camera_before.py"), code("camera_after.py")) if line.startswith(("-", "+"))
    ]
    assert [line[:2].strip() + line[2:] for line in changed] == next(b for k, b in BLOCKS if k == "diff").splitlines()
    before = run(EXAMPLES / "camera_before.py", cwd=tmp_path)
    assert len(before.splitlines()) == 20
    assert run(EXAMPLES / "camera_after.py", cwd=tmp_path) == before
    assert run(EXAMPLES / "camera_after.py", cwd=tmp_path, SPLITBUS_BROKER="mqtt://127.0.0.1:1") == before


def test_the_programs_take_a_model(tmp_path: Path) -> None:
    path = models.save(models.chain("N"), tmp_path)
    before = run(EXAMPLES / "camera_before.py", path, cwd=tmp_path)
    assert run(EXAMPLES / "camera_after.py", path, cwd=tmp_path) == before
    lines = run(EXAMPLES / "camera_stream.py", path, "--frames", 3, cwd=tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == [line.split()[1] for line in before.splitlines()[:3]]
    assert all("  local  " in line for line in lines)
    still = run(EXAMPLES / "camera_still.py", path, "--frames", 3, cwd=tmp_path).splitlines()
    assert still == [f"{before.splitlines()[0].split()[1]}  local  0 bytes sent"] * 3


@pytest.mark.broker
def test_the_loop_says_how_its_frames_crossed_the_bus(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(_small_model())
    plan = site.plan(site.register(path), [("edge1", 2)], device="front-door")
    site.publish(plan, "front-door")
    with site.worker("edge1", *site.stage_slices(plan)):
        options = ("--broker", site.broker.url, "--site", site.name, "--device", "front-door")
        lines = run(EXAMPLES / "camera_stream.py", path, *options, "--frames", 3000, cwd=tmp_path).splitlines()
    assert len(lines) == 3000
    assert f"  front-door>edge1  {lines[-1].split()[2]} ms  plan {plan.plan}  " in lines[-1]
    topic = STATUS.at(site.name, node="front-door")
    wait_for("it says goodbye", lambda: any(d.topic == topic and b'"stopping"' in d.payload for d in site.heard))


@pytest.mark.broker
def test_the_sealed_camera_is_read_by_its_worker_alone(broker: Broker, tmp_path: Path) -> None:
    path, key, signer = tmp_path / "small.onnx", tmp_path / "seal.key", Signer(Ed25519PrivateKey.generate())
    path.write_bytes(_small_model())
    site = Site(broker, tmp_path, signer=signer)
    sealed = SealedSite(site)
    sealed.enrol("edge1")
    key.write_text(sealed.enrol("cam-door") + "\n")
    key.chmod(0o600)
    plan = site.plan(site.register(path), [("edge1", 2)], device="cam-door")
    site.publish(plan, "cam-door")
    options = ("--broker", broker.url, "--site", site.name, "--device", "cam-door", "--frames", 3000)
    with Thief(broker, site.name) as thief, sealed.worker("edge1", *site.stage_slices(plan)):
        keys = ("--gateway-key", signer.public, "--seal-key", key)
        lines = run(EXAMPLES / "camera_sealed.py", path, *options, *keys, cwd=tmp_path).splitlines()
        assert len(lines) == 3000
        assert "  cam-door>edge1  " in lines[-1]
        assert any(isinstance(packet, Sealed) for _, packet in thief.packets("job"))
        assert not any(isinstance(packet, Job) for _, packet in thief.packets("job"))
    site.close()


def test_the_durable_camera_gets_every_frame_once_whenever_it_is_killed(tmp_path: Path) -> None:
    program = [sys.executable, str(EXAMPLES / "camera_durable.py"), "--frames", "40"]
    for lines in (1, 5, 20):
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=tmp_path, bufsize=1) as camera:
            assert camera.stdout is not None
            for _ in range(lines):
                camera.stdout.readline()
            camera.kill()
    run(EXAMPLES / "camera_durable.py", "--frames", 40, cwd=tmp_path)
    results = (tmp_path / "results.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in results) == sorted(f"picture-{n}" for n in range(40))
    before = run(EXAMPLES / "camera_before.py", cwd=tmp_path).splitlines()
    assert {f"picture-{line}" for line in before} <= set(results)
    assert run(EXAMPLES / "camera_durable.py", "--frames", 40, cwd=tmp_path) == ""


def _small_model() -> bytes:
    return subprocess.run(
        [sys.executable, "-c", "import sys; from small_model import *; sys.stdout.buffer.write(small_model())"],
        capture_output=True, check=True, cwd=EXAMPLES,
    ).stdout  # fmt: skip


@pytest.fixture
def page_site(broker_factory: BrokerFactory, tmp_path: Path) -> Iterator[Site]:
    """What the page takes for granted: a model, a gateway that knows it, certificates."""
    nodes = [
        models.conv("input", "a", strides=[4, 4]),
        models.node("GlobalAveragePool", ["a"], ["p"]),
        models.node("Flatten", ["p"], ["scores"]),
    ]
    inputs, outputs = [models.value("input", [1, 3, 224, 224])], [models.value("scores", [1, 8])]
    onnx.save(models.model(nodes, inputs, outputs, models.conv_weights("a", 8, 3)), tmp_path / "person.onnx")
    authority = create_authority("home", datetime.now(UTC))
    server = issue_server(authority, [client_host()], datetime.now(UTC))
    issue_node(authority, "camera1", datetime.now(UTC)).write(tmp_path, "camera1")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    tls = ServerTls(authority.pem, server.certificate, server.key)
    with broker_factory(tls=tls) as broker:
        site = Site(broker, tmp_path, name="home")
        site.register(tmp_path / "person.onnx", "person")
        yield site
        site.close()


@pytest.mark.broker
def test_every_block_of_the_page_runs(page_site: Site, tmp_path: Path) -> None:
    broker = page_site.broker
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.full((240, 320, 3), 90, np.uint8)).save(tmp_path / "pictures" / "one.jpg")
    assert len(COMMANDS) == 2
    for command in COMMANDS:
        name, *arguments = shlex.split(command)
        assert name == "splitbus"
        run("-P", "-m", "splitbus_cli", *arguments, cwd=tmp_path, SPLITBUS_STATE_DIR=str(tmp_path / "gateway"))
    assert len(PYTHON) == 6
    for number, block in enumerate(PYTHON):
        program = tmp_path / f"block{number}.py"
        program.write_text(
            block.replace("mqtt://gateway", broker.url).replace(
                "mqtts://gateway", f"mqtts://{broker.host}:{broker.ports[TLS]}"
            )
        )
        run(program, cwd=tmp_path)


def test_the_page_names_every_option_and_every_field() -> None:
    options = {
        name for row in re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert options == set(inspect.signature(InferenceSession).parameters) - {"model"}
    listed = PAGE[PAGE.index("`on_answer=`") : PAGE.index("## Options")]
    assert set(re.findall(r"`(\w+)`", listed)) >= set(Answer.__dataclass_fields__) - {"input"}
