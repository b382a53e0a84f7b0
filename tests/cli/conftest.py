"""The command line run in this process, and as a process of its own."""

from __future__ import annotations

import logging
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from tests import models
from tests.brokers import Broker
from typer.testing import CliRunner, Result

from splitbus_cli.app import app
from splitbus_runtime.mqtt import MqttBus

Run: TypeAlias = Callable[..., Result]
Start: TypeAlias = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def as_logging_was() -> Iterator[None]:
    """Commands set up the root logger, whose handler ends with the command."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide, without colours, and without the caller's own settings."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("BROKER", "SITE", "USERNAME", "PASSWORD_FILE", "STATE_DIR", "LOG_LEVEL", "LOG_JSON", "SEAL_KEY"):
        monkeypatch.delenv(f"SPLITBUS_{name}", raising=False)


@pytest.fixture
def run() -> Run:
    """`run("cuts", path)`: a command to its end, with exit_code, stdout and stderr."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def start() -> Iterator[Start]:
    """A command as a process that is killed with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "splitbus_cli", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def site() -> str:
    """A site that no other test uses."""
    return f"s{secrets.token_hex(4)}"


@pytest.fixture
def bus(broker: Broker) -> Iterator[MqttBus]:
    """A connection that plays nodes and gateway."""
    connection = MqttBus(broker.host, broker.port, client_id=f"test-{secrets.token_hex(4)}")
    connection.wait_connected(5)
    yield connection
    connection.close()


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A small model with useful cuts 2, 4 and 8 of nine nodes."""
    return models.save(models.chain(), tmp_path, "chain.onnx")
