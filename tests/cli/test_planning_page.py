"""Every command on docs/planning.md runs, in order, in a folder that has what the page speaks of."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from tests.brokers import Broker
from tests.cli.conftest import Run
from tests.cli.planned import cache, model_file, tell_site
from tests.gateway.given import write_trace

from splitbus_gateway.trace import drive
from splitbus_runtime.mqtt import MqttBus

__all__ = ["cache"]

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"


def commands() -> list[list[str]]:
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.slow
def test_the_page_s_commands_do_what_it_says(
    run: Run, bus: MqttBus, broker: Broker, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_file(tmp_path)
    np.savez(tmp_path / "frames.npz", x=np.random.default_rng(0).normal(size=(4, 3, 128, 128)).astype(np.float32))
    (tmp_path / "drive.csv").write_text("\n".join(write_trace(drive(1, seconds=10))))
    tell_site(bus, site, model, device="camera1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLITBUS_BROKER", broker.url)
    monkeypatch.setenv("SPLITBUS_SITE", site)
    found = commands()
    assert {tuple(words[1:3]) for words in found} >= {("plan", "map"), ("plan", "replay"), ("plan", "person.onnx")}
    for words in found:
        assert words[0] == "splitbus"
        result = run(*words[1:])
        assert result.exit_code == (1 if "--max-mbit" in words else 0), (words, result.output)
    assert {"camera.json", "box.json", "map.png", "replay.png"} <= {path.name for path in tmp_path.iterdir()}
