"""The public interface's types: mypy, strict, agrees with `typing_examples.py` and sees what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).with_name("typing_examples.py")
WRONG = """
from splitbus_device import InferenceSession
session = InferenceSession("m.onnx", deadlin=0.2)
session.run(None, 7)
reveal_type(session.run(None, {}))
session.last_answer.route
"""


def mypy(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)]
    root = EXAMPLES.parent.parent.parent
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=110)


@pytest.mark.slow
def test_types_are_as_the_examples_say(tmp_path: Path) -> None:
    done = mypy(EXAMPLES)
    assert (done.returncode, done.stdout) == (0, "")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    lines = [line.partition(":")[2] for line in mypy(wrong).stdout.splitlines()]
    assert [line.partition(":")[0] for line in lines if "error" in line] == ["3", "4", "6"]
    assert any('Revealed type is "list[Any]"' in line.replace("builtins.", "") for line in lines)
