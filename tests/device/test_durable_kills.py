"""A real camera process is killed again and again: no frame that it accepted is lost, none is applied twice."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.device import durable_camera
from tests.device.rig import CAMERA, FalseWorker, Site, plain, same, wait_for

PROGRAM = Path(durable_camera.__file__)
FRAMES = 2000
"""More than a life can take before it is killed."""

LINGER_S = 0.003
"""Between the effect of an answer and the return of the callback: the time in which a kill makes it come again."""


class Lives:
    """The lives of one camera."""

    def __init__(self, folder: Path, model: Path, *, fsync: str = "interval", **session: Any) -> None:
        self.folder, self.model = folder, model
        folder.mkdir()
        self._options = {"model": str(model), "fsync": fsync, "linger": LINGER_S, "session": session}

    @contextlib.contextmanager
    def life(self, *, frames: int, wait_plan: float = 0.0) -> Iterator[subprocess.Popen[str]]:
        options = json.dumps(self._options | {"frames": frames, "wait_plan": wait_plan})
        with subprocess.Popen(
            [sys.executable, str(PROGRAM), str(self.folder), options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def end_well(self, *, frames: int = 0, wait_plan: float = 0.0) -> dict[str, int]:
        """A life that is not killed; what its journal counted."""
        with self.life(frames=frames, wait_plan=wait_plan) as process:
            out, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
        counters: dict[str, int] = json.loads(out.splitlines()[-1])
        return counters

    def killed(self, word: str, seconds: float, *, wait_plan: float = 0.0) -> None:
        """A life that ends so long after it said `word`."""
        with self.life(frames=FRAMES, wait_plan=wait_plan) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == word:
                    break
            time.sleep(seconds)
            assert process.poll() is None, process.communicate()

    @property
    def accepted(self) -> list[int]:
        return [entry["number"] for entry in _read(self.folder / "accepted")]

    @property
    def applied(self) -> list[dict[str, Any]]:
        return _read(self.folder / "applied")

    @property
    def repeats(self) -> int:
        """Answers that came again after they had been applied, and were recognised."""
        return len(_read(self.folder / "repeats"))

    def check(self) -> None:
        """What is promised, of every frame of every life."""
        applied = self.applied
        times = Counter(entry["key"] for entry in applied)
        assert [key for key, count in times.items() if count != 1] == [], "applied twice"
        assert {f"frame {number}" for number in self.accepted} - times.keys() == set(), "lost"
        reference = plain(self.model)
        for entry in applied:
            assert entry["outcome"] == "answered", entry
            expected = reference.run(None, durable_camera.frame(int(entry["key"].split()[1])))
            same([np.array(output, np.float32) for output in entry["outputs"]], expected, 1e-4)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_often(lives: Lives, times: int, *, wait_plan: float, seed: int) -> None:
    """Kill while frames are taken, and every fifth time while those of the last life are being resumed."""
    points = random.Random(seed)
    for life in range(times):
        resuming = life % 5 == 4
        lives.killed("open" if resuming else "ready", points.uniform(0, 0.2), wait_plan=wait_plan)
    counters = lives.end_well(frames=3, wait_plan=wait_plan)
    assert counters.keys() <= {"durable_damaged"}, counters  # a kill may tear the last record, and does no more
    assert len(lives.accepted) > 5 * times
    assert lives.repeats  # without them, it was never killed at the point that matters most
    lives.check()


def test_killed_without_a_bus_it_loses_nothing_and_doubles_nothing(chain: Path, tmp_path: Path) -> None:
    kill_often(Lives(tmp_path / "lives", chain), 8, wait_plan=0.0, seed=1)


def on_the_bus(site: Site, fsync: str = "interval") -> dict[str, Any]:
    return {
        "broker": site.broker.url, "site": site.name, "device": CAMERA, "store": str(site.folder / "camera"),
        "deadline": 2.0,
    }  # fmt: skip


def crossing(site: Site, chain: Path, times: int, fsync: str) -> Lives:
    """Kill a camera whose frames cross the bus."""
    lives = Lives(site.folder / "lives", chain, fsync=fsync, **on_the_bus(site))
    plan = site.publish(site.plan(site.register(chain), [("edge1", 2)]))
    with site.worker("edge1", *site.stage_slices(plan)):
        kill_often(lives, times, wait_plan=5.0, seed=times)
    return lives


@pytest.mark.broker
def test_killed_in_mid_flight_it_loses_nothing_and_doubles_nothing(site: Site, chain: Path) -> None:
    lives = crossing(site, chain, 8, "interval")
    remote = sum(len(entry["route"]) == 2 for entry in lives.applied)
    assert remote > len(lives.applied) / 2


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fsync", ["always", "never"])
def test_killed_at_a_hundred_points(site: Site, chain: Path, fsync: str) -> None:
    crossing(site, chain, 50, fsync)


@pytest.mark.broker
def test_what_the_head_made_is_sent_again_and_the_head_not_run(site: Site, chain: Path) -> None:
    """A worker takes the jobs and says nothing; the camera is killed; the next life finds a worker that answers."""
    lives = Lives(site.folder / "lives", chain, **(on_the_bus(site) | {"deadline": 60.0, "window": 3}))
    plan = site.publish(site.plan(site.register(chain), [("edge1", 2)]))
    with FalseWorker(site, "edge1") as silent, lives.life(frames=3, wait_plan=10.0):
        wait_for("the jobs of three frames", lambda: len(silent.jobs) >= 3)
        wait_for("three heads in the journal", lambda: _journal_bytes(lives) > 3 * (3 * 16 * 16 * 4 + 100))
        time.sleep(0.2)
    assert lives.applied == []
    with site.worker("edge1", *site.stage_slices(plan)):
        lives.end_well()
    lives.check()
    assert [(e["key"], e["route"], e["repeated"], e["ran"]) for e in lives.applied] == [
        (f"frame {n}", [CAMERA, "edge1"], False, ["edge1"]) for n in range(3)
    ]


def _journal_bytes(lives: Lives) -> int:
    return sum(path.stat().st_size for path in (lives.folder / "journal").glob("*.journal"))
