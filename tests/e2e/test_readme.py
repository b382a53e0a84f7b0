"""README and docs are true: their shell lines work on a running site, their commands exist, their Python compiles."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.brokers import BrokerFactory
from tests.e2e.picture_model import picture
from tests.e2e.site import CAMERA, CLOUD, EDGE, Site, environment, running, wait_for
from typer.testing import CliRunner

from splitbus_cli.app import app
from splitbus_schemas import topics

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
WATCHED_PAGES = (ROOT / "README.md", ROOT / "docs" / "operator.md")
"""Their lines for mosquitto_sub need no more than a broker."""

GROUPS = {"model", "plan", "certs", "device", "codec", "seal"}
PLAN_COMMANDS = {"pin", "unpin", "show", "explain", "map", "replay"}
"""What else stands behind `splitbus plan` is a model."""

LISTEN_SECONDS = 4
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Line:
    """A line of a code block."""

    page: Path
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.partition('#')[0].strip()}"

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(page.read_text()) if kind == language]


def lines(pages: tuple[Path, ...] | list[Path], program: str) -> list[Line]:
    found = [text for page in pages for block in blocks(page, "sh") for text in
             ((page, line.strip()) for line in block.replace("\\\n", " ").splitlines())]  # fmt: skip
    return [Line(page, text) for page, text in found if text.split(" ", 1)[0] == program]


# mosquitto_sub and mosquitto_pub


@pytest.fixture(scope="module")
def home(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site that the pages speak of: its name is home, its camera is camera1."""
    if shutil.which("mosquitto_sub") is None:
        pytest.skip("mosquitto_sub is not installed (apt-get install mosquitto-clients)")
    with (
        broker_factory() as broker,
        running(
            broker, tmp_path_factory.mktemp("home"), workers=((EDGE, "edge"), (CLOUD, "cloud")), name="home"
        ) as site,
    ):
        site.settle()
        wait_for(
            "a link report and statistics", lambda: site.watch.counter(EDGE, "jobs") + site.watch.counter(CLOUD, "jobs")
        )
        yield site


@pytest.fixture(scope="module")
def printed(home: Site) -> dict[Line, list[str]]:
    """What each line prints in some seconds in which frames pass and something goes wrong."""
    home.settle()
    there = ["-h", home.broker.host, "-p", str(home.broker.port), "-W", str(LISTEN_SECONDS)]
    running = {
        line: subprocess.Popen([*line.words, *there], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in SUBSCRIPTIONS
    }
    time.sleep(LISTEN_SECONDS / 3)
    home.watch.bus.publish(topics.JOB.at(home.name, node=EDGE, device="stranger"), b"no packet", qos=1)
    output = {line: process.communicate(timeout=LISTEN_SECONDS + 10)[0].decode() for line, process in running.items()}
    for line, process in running.items():
        assert process.returncode in (0, 27), output[line]  # 27: the time given by -W was over
    return {line: text.splitlines() for line, text in output.items()}


def messages(told: list[str]) -> dict[str, list[Any]]:
    """The messages that `-v` printed, by kind of topic; raises for one that breaks the contract."""
    found: dict[str, list[Any]] = {}
    for text in told:
        topic, _, payload = text.partition(" ")
        kind, _ = topics.parse_topic(topic)
        assert kind.message is not None, text
        found.setdefault(kind.name, []).append(kind.message.from_json(payload.encode()))
    return found


def _statuses(found: dict[str, list[Any]]) -> bool:
    return {status.node for status in found["status"]} == {CAMERA, EDGE, CLOUD, "gateway"}


def _has(*kinds: str) -> Callable[[dict[str, list[Any]]], bool]:
    return lambda found: set(kinds) <= set(found)


def _only(kind: str) -> Callable[[dict[str, list[Any]]], bool]:
    return lambda found: set(found) == {kind}


PROMISES: dict[str, Callable[[dict[str, list[Any]]], bool]] = {
    "node/+/status": _statuses,
    "node/+/alert": lambda found: any(alert.node == EDGE for alert in found["alert"]),
    "node/camera1/#": _has("status", "caps", "stats", "link", "plan-state", "stream"),
    "node/camera1/stream/+": lambda found: any(stats.frames and stats.steps for stats in found["stream"]),
    "node/camera1/link/+": lambda found: {link.peer for link in found["link"]} == {EDGE, CLOUD},
    "ctl/camera1/#": _has("plan", "decision", "work", "peers"),
    "ctl/camera1/plan/+": _only("plan"),
    "ctl/camera1/decision/+": lambda found: all(decision.why for decision in found["decision"]),
}
"""What the lines with -v promise, by the part of their filter behind the site."""

SUBSCRIPTIONS = lines(WATCHED_PAGES, "mosquitto_sub")


@pytest.mark.parametrize("line", [line for line in SUBSCRIPTIONS if "-v" in line.words], ids=str)
def test_mosquitto_sub_prints_what_the_page_says(printed: dict[Line, list[str]], line: Line) -> None:
    pattern = line.words[line.words.index("-t") + 1].removeprefix(f"{topics.ROOT}/+/")
    assert PROMISES[pattern](messages([text for text in printed[line] if text != "Timed out"]))


@pytest.mark.parametrize("line", [line for line in SUBSCRIPTIONS if "-F" in line.words], ids=str)
def test_mosquitto_sub_follows_the_frames(home: Site, printed: dict[Line, list[str]], line: Line) -> None:
    """Time, topic, size; then plan and epoch, and the model, as the user properties tell them."""
    frames = [text for text in printed[line] if " model:" in text]
    assert len(frames) > LISTEN_SECONDS, printed[line][:4]
    plans = "|".join(plan.plan for plan in home.plans())
    form = rf"\S+ splitbus/v1/home/job/\w+/{CAMERA} \d+ bytes plan:({plans})/\d+ model:{home.key}"
    assert [text for text in frames if not re.fullmatch(form, text)] == []


def test_there_are_lines_to_try() -> None:
    assert len(SUBSCRIPTIONS) >= 10
    assert len(lines(PAGES, "splitbus")) >= 20


def test_pins_by_hand(home: Site) -> None:
    """The operator's page pins and unpins with mosquitto_pub alone."""
    home.settle()
    pin, unpin = lines(WATCHED_PAGES, "mosquitto_pub")
    publish(home, pin)
    wait_for("everything is on the camera", lambda: (plan := home.plan()) and plan.is_local)
    publish(home, unpin)
    home.settle()


def publish(site: Site, line: Line) -> None:
    words = [word.replace("MODEL", site.key) for word in line.words]
    subprocess.run([*words, "-h", site.broker.host, "-p", str(site.broker.port)], check=True, timeout=10)


# splitbus


@pytest.mark.parametrize("line", [pytest.param(line, id=str(line)) for line in lines(PAGES, "splitbus")])
def test_the_command_exists(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    words = line.words[1:]
    group = words[:2] if words[0] in GROUPS else words[:1]
    shown = CliRunner().invoke(app, [*group, "--help"])
    assert shown.exit_code == 0, shown.output
    named = ["plan", "MODEL"] if group[0] == "plan" and group[1] not in PLAN_COMMANDS else group
    assert shown.output.strip().startswith(f"Usage: root {' '.join(named)}"), shown.output[:80]
    missing = [word for word in words if word.startswith("--") and word.partition("=")[0] not in shown.output]
    assert missing == []


# Python


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


def test_the_one_line_change_works(home: Site, tmp_path: Path) -> None:
    """README's diff, before and after, as programs, gives the same answers."""
    (diff,) = blocks(ROOT / "README.md", "diff")
    assert "mqtts://gateway" in diff
    shutil.copy(home.model, tmp_path / "person.onnx")
    np.save(tmp_path / "image.npy", picture(3))
    before, after = (_run(diff, side, home.broker.url, tmp_path) for side in "-+")
    assert before.tobytes() == after.tobytes()


def _run(diff: str, side: str, broker: str, folder: Path) -> Any:
    """The outputs of the program on one side of the diff, which takes one picture."""
    program = "\n".join(line[1:] for line in diff.splitlines() if line[0] in f" {side}")
    program = program.replace("mqtts://gateway", broker).replace('{"input": image}', '{"x": image}')
    text = f"import numpy as np\nimage = np.load('image.npy')\n{program}\nnp.save('outputs.npy', outputs[0])\n"
    env = environment(XDG_CACHE_HOME=str(folder / "cache"))
    command = [sys.executable, "-P", "-W", "error", "-c", text]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return np.load(folder / "outputs.npy")
