"""What the command line as a whole promises: names, help, exit codes, one line for a mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.brokers import Broker
from tests.cli.conftest import Run, Start
from typer.core import TyperGroup
from typer.main import get_command

from splitbus_cli.app import app

COMMANDS = {
    "gateway": None,
    "worker": None,
    "model": ["add", "export", "list", "remove", "table"],
    "codec": ["calibration", "decode", "encode"],
    "plan": ["explain", "map", "pin", "replay", "show", "unpin"],
    "top": None,
    "tap": None,
    "doctor": None,
    "cuts": None,
    "verify": None,
    "profile": None,
    "certs": ["authority", "client", "server"],
    "device": ["enroll", "list", "revoke"],
    "seal": ["add", "list", "policy", "retire", "revoke"],
    "demo": None,
}

NEVER_IN_HELP = ("onnx", "onnxruntime", "numpy", "paho", "splitbus_gateway", "splitbus_worker", "splitbus_demo")


def leaves() -> list[tuple[str, ...]]:
    return [(name, *rest) for name, subs in COMMANDS.items() for rest in ([(s,) for s in subs] if subs else [()])]


def test_the_commands_are_these() -> None:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    found = {
        name: sorted(n for n, c in command.commands.items() if not c.hidden)
        if isinstance(command, TyperGroup)
        else None
        for name, command in root.commands.items()
    }
    assert found == COMMANDS


@pytest.mark.parametrize("command", leaves(), ids=" ".join)
def test_each_help_says_what_it_does_and_gives_an_example(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"Example: splitbus {' '.join(command)}" in result.stdout


def test_version(run: Run) -> None:
    assert run("--version").stdout.startswith("splitbus 0.")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from splitbus_cli.app import app\n"
        "for args in (['--help'], ['worker', '--help'], ['plan', 'pin', '--help']):\n"
        "    assert CliRunner().invoke(app, args).exit_code == 0\n"
        f"print([name for name in {NEVER_IN_HELP!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    environment = os.environ | {"_SPLITBUS_COMPLETE": f"source_{shell}"}
    splitbus = Path(sys.executable).with_name("splitbus")
    done = subprocess.run([splitbus], capture_output=True, text=True, check=True, env=environment)
    assert "_SPLITBUS_COMPLETE" in done.stdout


def test_completion_offers_commands() -> None:
    environment = os.environ | {"_SPLITBUS_COMPLETE": "complete_bash", "COMP_WORDS": "splitbus ve", "COMP_CWORD": "1"}
    splitbus = Path(sys.executable).with_name("splitbus")
    done = subprocess.run([splitbus], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["verify"]


@pytest.mark.parametrize("arguments", [["nonsense"], ["verify"], ["worker", "--tier", "sky"], ["tap", "--count", "0"]])
def test_wrong_usage_exits_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def blocked(*modules: str) -> str:
    """A program that runs `splitbus` as if these modules were not installed."""
    return f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\nfrom splitbus_cli.main import main\nmain()"


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("typer", "cli", ["--help"]),
        ("rich", "cli", ["top", "--once"]),
        ("onnx", "gateway", ["cuts", "model.onnx"]),
        ("onnx", "gateway", ["model", "list"]),
        ("cryptography", "gateway", ["certs", "client", "cam1"]),
    ],
)
def test_a_missing_extra_is_named(module: str, extra: str, arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocked(module), *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"splitbus: this needs {module}, which is not installed: pip install 'splitbus[{extra}]'\n"


def test_a_missing_module_of_no_extra_is_a_bug_and_shows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocked("msgpack"), "tap", "--broker=mqtt://127.0.0.1:1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_debug_shows_the_traceback(run: Run, tmp_path: Path) -> None:
    result = run("--debug", "cuts", tmp_path / "none.onnx")
    assert result.exit_code == 1
    assert "none.onnx cannot be read" in str(result.exception)


def test_interrupt_is_quiet(start: Start, broker: Broker, site: str) -> None:
    process = start("tap", "--broker", broker.url, "--site", site)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=10)
    assert (process.returncode, stdout, stderr) == (130, "", "")


def test_a_closed_pipe_is_no_error(broker: Broker) -> None:
    command = f"{sys.executable} -m splitbus_cli top --json --broker {broker.url} | head -c 10 > /dev/null"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
