"""`splitbus gateway` and `splitbus worker` as processes under a stand-in for systemd, and what they refuse."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.cli.conftest import Run, Start

from splitbus_runtime.bus import Delivery
from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas.messages import ModelCard, NodeStatus
from splitbus_schemas.topics import MODEL, STATUS

PATIENCE_SECONDS = 20.0


class Systemd:
    """The socket that a unit of Type=notify writes to."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0.2)
        self.environment = os.environ | {"NOTIFY_SOCKET": str(path)}
        self.said: list[str] = []

    def hear(self, seconds: float) -> list[str]:
        """All that was said, after listening so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.said.append(self._socket.recv(4096).decode())
            except TimeoutError:
                continue
        return self.said

    def wait(self, word: str) -> None:
        """Return once a message begins with `word`."""
        wait_for(lambda: any(line.startswith(word) for line in self.hear(0.1)), f"{word} in {self.said}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    stand_in = Systemd(tmp_path / "notify")
    yield stand_in
    stand_in.close()


def wait_for(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Seen:
    """The newest message of each topic."""

    def __init__(self, bus: MqttBus, pattern: str) -> None:
        self.newest: dict[str, bytes] = {}
        bus.subscribe(pattern, self._take, qos=1)

    def _take(self, delivery: Delivery) -> None:
        self.newest[delivery.topic] = delivery.payload

    def state(self, topic: str) -> str:
        payload = self.newest.get(topic)
        return NodeStatus.from_json(payload).state if payload else ""


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """The log of a process that ends in order."""
    process.send_signal(number)
    _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, log
    assert "Traceback" not in log
    return log


@pytest.mark.parametrize(("tier", "number"), [("edge", signal.SIGTERM), ("cloud", signal.SIGINT)])
def test_a_worker_starts_and_stops(
    start: Start, bus: MqttBus, broker: Broker, site: str, systemd: Systemd, tmp_path: Path,
    tier: str, number: signal.Signals,
) -> None:  # fmt: skip
    topic = STATUS.at(site, node="w1")
    seen = Seen(bus, topic)
    process = start(
        "worker", "--tier", tier, "--node", "w1", "--threads", 1, "--memory-mb", 64, "--state-dir", tmp_path / "w1",
        "--broker", broker.url, "--site", site, env=systemd.environment,
    )  # fmt: skip
    wait_for(lambda: seen.state(topic) == "ready", "the worker is ready")
    assert NodeStatus.from_json(seen.newest[topic]).tier == tier
    systemd.wait("READY=1")
    systemd.wait("WATCHDOG=1")
    log = end(process, number)
    systemd.hear(0.3)
    assert "STOPPING=1" in systemd.said
    wait_for(lambda: seen.state(topic) == "stopping", "it said goodbye")
    assert "w1 serves" in log


def test_the_gateway_starts_follows_its_models_and_stops(
    run: Run, start: Start, bus: MqttBus, broker: Broker, site: str, systemd: Systemd, tmp_path: Path, chain: Path
) -> None:
    status, card = STATUS.at(site, node="gateway"), MODEL.at(site, name="person")
    seen = Seen(bus, f"splitbus/v1/{site}/#")
    state = tmp_path / "state"
    process = start(
        "--log-json", "gateway", "--broker", broker.url, "--site", site, "--state-dir", state, env=systemd.environment
    )
    wait_for(lambda: seen.state(status) == "ready", "the gateway is ready")
    systemd.wait("READY=1")
    systemd.wait("WATCHDOG=1")
    assert run("model", "add", "person", chain, "--state-dir", state).exit_code == 0
    wait_for(lambda: seen.newest.get(card), "the model's card")
    assert ModelCard.from_json(seen.newest[card]).cuts == [0, 2, 4, 8]
    process.send_signal(signal.SIGHUP)
    assert run("model", "remove", "person", "--state-dir", state).exit_code == 0
    wait_for(lambda: seen.newest.get(card) == b"", "the card is gone")
    log = end(process, signal.SIGTERM)
    wait_for(lambda: seen.state(status) == "stopping", "it said goodbye")
    lines = [json.loads(line) for line in log.splitlines()]
    assert any("SIGHUP" in line["message"] for line in lines)
    assert any(f"gateway serves site {site}" in line["message"] for line in lines)


@pytest.mark.parametrize("command", ["gateway", "worker"])
def test_a_daemon_waits_for_its_broker(start: Start, systemd: Systemd, tmp_path: Path, command: str) -> None:
    process = start(
        command, "--broker", "mqtt://127.0.0.1:1", "--state-dir", tmp_path / "state", env=systemd.environment
    )  # fmt: skip
    systemd.wait("STATUS=")
    wait_for(lambda: any("Connection refused" in line for line in systemd.hear(0.1)), "the reason")
    assert process.poll() is None
    log = end(process, signal.SIGTERM)
    assert "READY=1" not in systemd.said
    assert "WATCHDOG=1" not in systemd.said
    assert "waits for the broker at mqtt://127.0.0.1:1" in log


@pytest.mark.slow
def test_the_watchdog_starves_while_the_broker_hangs(
    start: Start, broker_factory: BrokerFactory, tmp_path: Path
) -> None:
    with broker_factory() as broker, ExitStack() as stack:
        daemons = []
        for command in ("gateway", "worker"):
            systemd = stack.enter_context(closing(Systemd(tmp_path / command)))
            folder = tmp_path / f"{command}-state"
            process = start(command, "--broker", broker.url, "--state-dir", folder, env=systemd.environment)
            daemons.append((systemd, process))
        for systemd, _ in daemons:
            systemd.wait("WATCHDOG=1")
        broker.suspend()
        time.sleep(12)
        for systemd, _ in daemons:
            systemd.hear(0.5)
            systemd.said.clear()
        time.sleep(2)
        for systemd, _ in daemons:
            assert "WATCHDOG=1" not in systemd.hear(0.5)
            assert any(line.startswith("STATUS=") for line in systemd.said)
        broker.resume()
        for systemd, process in daemons:
            systemd.wait("WATCHDOG=1")
            end(process, signal.SIGTERM)


def test_check_config(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('site = "home"\nstate_dir = "state"\n[broker]\nurl = "mqtts://gateway.local"\n')
    result = run("gateway", "--check-config", "--config", config)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{config}: ok\n", "")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('sit = "home"', "sit is not a setting: did you mean site?"),
        ("[planner]\nmin_gain = 3", "planner.min_gain = 3: "),
        ('[broker]\nurl = "http://x"', "broker.url = 'http://x': the scheme 'http' is not known"),
        ('[broker]\nusername = "g"\npassword_file = "none"', "none cannot be read"),
        ("site = ", "is not a TOML file"),
    ],
)
@pytest.mark.parametrize("check", [["--check-config"], []])
def test_a_bad_key_is_named(run: Run, tmp_path: Path, content: str, problem: str, check: list[str]) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f"{content}\n")
    state = ["--state-dir", tmp_path / "state"]
    result = run("gateway", "--config", config, *check, *state)
    assert (result.exit_code, result.stdout) == (1, "")
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_example_configuration_is_sound(run: Run) -> None:
    example = Path(__file__).parents[2] / "gateway" / "gateway.example.toml"
    result = run("gateway", "--check-config", "--config", example)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--node", "A B"], "node = 'A B'"),
        (["--slowdown", "0"], "slowdown = 0.0"),
        (["--config", "none.toml"], "none.toml cannot be read"),
    ],
)
def test_what_a_worker_refuses(run: Run, arguments: list[str], problem: str) -> None:
    result = run("worker", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert problem in result.stderr


def test_options_stand_over_the_file(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[broker]\nurl = "mqtt://file"\nusername = "g"\npassword_file = "word"\n')
    (tmp_path / "word").write_text("secret\n")
    refused = run("gateway", "--check-config", "--config", config, "--broker", "mqtt://u:p@option")
    assert "the password is given twice" in refused.stderr
    assert run("gateway", "--check-config", "--config", config, "--broker", "mqtt://option").exit_code == 0
