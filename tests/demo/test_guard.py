"""A guarded program ends with its starter, however the starter ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splitbus_demo import guard

STUBBORN = "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"
STARTER = """
import os, signal, sys, time
from pathlib import Path
from splitbus_demo import guard
guarded = guard.start([sys.executable, "-c", sys.argv[1]], log=Path(sys.argv[2]))
time.sleep(60)
"""


def pid_in(log: Path) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if log.exists() and log.read_text().endswith("\n"):
            return int(log.read_text())
        time.sleep(0.01)
    pytest.fail("the program did not start")


def gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_program_ends_when_the_starter_is_killed(tmp_path: Path, ending: signal.Signals) -> None:
    log, program = tmp_path / "log", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    starter = subprocess.Popen([sys.executable, "-c", STARTER, program, str(log)], stderr=subprocess.DEVNULL)
    pid = pid_in(log)
    starter.send_signal(ending)
    starter.wait()
    assert gone(pid, 5)


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = guard.start([sys.executable, "-c", STUBBORN], log=tmp_path / "log")
    pid = pid_in(tmp_path / "log")
    started = time.monotonic()
    guard.stop(process)
    assert gone(pid, 1)
    assert guard.STOP_SECONDS <= time.monotonic() - started < guard.STOP_SECONDS + 2
    guard.stop(process)


def test_sigterm_to_the_guard_ends_the_program(tmp_path: Path) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    process = guard.start([sys.executable, "-c", program], log=tmp_path / "log")
    pid = pid_in(tmp_path / "log")
    process.terminate()
    assert process.wait(5) == 128 + signal.SIGTERM
    assert gone(pid, 1)
    guard.stop(process)


def test_the_guard_ends_with_its_programs_exit_code_and_keeps_its_output(tmp_path: Path) -> None:
    process = guard.start([sys.executable, "-c", "print('so long'); raise SystemExit(7)"], log=tmp_path / "log")
    assert process.wait(10) == 7
    guard.stop(process)
    assert (tmp_path / "log").read_text() == "so long\n"
