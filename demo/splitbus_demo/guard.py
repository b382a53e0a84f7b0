"""Keeps a program of the demo from outliving it: `python -m splitbus_demo.guard COMMAND...` ends it at end of input.

The guard's input is a pipe that only the starter holds, so that it ends with the starter, be it by SIGKILL. Linux's
parent-death signal would not do: Mosquitto loses it when it drops root's rights, and it is tied to one thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

STOP_SECONDS: Final = 3.0
"""For a program to end by itself after SIGTERM; then it is killed."""


def start(command: Sequence[str], *, log: Path) -> subprocess.Popen[bytes]:
    """The guard's process, with the command running under it and the output of both in `log`."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "splitbus_demo.guard", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the starter, which ends its programs in order
        )


def stop(guard: subprocess.Popen[bytes]) -> None:
    """End the command and its guard; both are gone when this returns."""
    if guard.stdin is not None:
        guard.stdin.close()
    try:
        guard.wait(2 * STOP_SECONDS)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()


def main() -> None:
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=_end, args=(program,)).start())
    threading.Thread(target=_end_with_input, args=(program,), daemon=True).start()
    code = program.wait()
    sys.exit(code if code >= 0 else 128 - code)  # as a shell says that a signal ended it


def _end_with_input(program: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock would be held when the interpreter ends
        pass
    _end(program)


def _end(program: subprocess.Popen[bytes]) -> None:
    program.terminate()
    try:
        program.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


if __name__ == "__main__":
    main()
