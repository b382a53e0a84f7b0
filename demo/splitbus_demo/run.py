"""The demo from the first package to the report: `run_demo` is what `splitbus demo` calls."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from splitbus_demo import efficientnet
from splitbus_demo.checks import Check, compare, judge
from splitbus_demo.inputs import InputSource
from splitbus_demo.live import split_of, view
from splitbus_demo.observer import AnswerTail, Observer, Seen
from splitbus_demo.picture import draw
from splitbus_demo.script import GOOD, MIN_SECONDS, PHASES, Act
from splitbus_demo.stage import CAMERA, Speeds, Stage, open_stage
from splitbus_gateway.registry import Registry
from splitbus_runtime.agent import default_store
from splitbus_runtime.engine import open_session
from splitbus_schemas.errors import ConfigError, ModelError
from splitbus_schemas.terms import number_of

FPS: Final = 6.0
DEADLINE_S: Final = 0.5
EDGE_SLOWDOWN: Final = 2.0
DEFAULT_CAMERA_SLOWDOWN: Final = 8.0
SAMPLES: Final = 16
"""Pictures on which coded sizes and agreement are measured when the model is registered."""

SAMPLE_STRIDE: Final = 37
"""Far enough apart to come from different photographs."""

FIRST_PLAN_SECONDS: Final = 60.0
"""For profiles on a slow camera, over its link, and the first plan."""

MODEL_NAME: Final = "demo"


@dataclass
class _Play:
    """What happened on the stage."""

    acts: list[Act]
    tail: AnswerTail
    observer: Observer


def run_demo(
    *,
    seconds: float = 60.0,
    headless: bool = False,
    report: Path | None = None,
    model: Path | None = None,
    slowdown: float = DEFAULT_CAMERA_SLOWDOWN,
) -> int:
    """Play the demo; 0 when every check holds, else 1. `report` is a JSON file; a picture is put beside it.

    Raises ConfigError, ModelError or BusError.
    """
    if seconds < MIN_SECONDS:
        raise ConfigError(f"--seconds {seconds:g} is too short to show anything: give at least {MIN_SECONDS:g}")
    target = _report_target(report or Path("splitbus-demo.json"))
    console = Console()
    home = default_store("demo")
    path = _model(model, home, console)
    state_dir = _register(path, home, console)
    speeds = Speeds(camera=slowdown, edge=EDGE_SLOWDOWN)
    with tempfile.TemporaryDirectory(prefix="splitbus-demo-") as folder:
        with open_stage(Path(folder), path, state_dir, GOOD, speeds) as stage:
            console.print(
                f"broker {stage.broker.kind} {stage.broker.version}; camera at 1/{slowdown:g} of this machine's speed, "
                f"edge worker at 1/{EDGE_SLOWDOWN:g}, cloud worker at full speed, one thread each"
            )
            play = _play(stage, seconds, console, headless=headless)
            broker = f"{stage.broker.kind} {stage.broker.version}"
        records = play.tail.records
        comparisons = _compare(path, records, stage, console)
    changes = _plan_changes(play)
    checks = judge(records, comparisons, play.acts, _frames_asked(records), _moves(records, play.acts[0].begin))
    result = _report(path, broker, speeds, play, changes, checks)
    target.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, play.acts, records, target.with_suffix(".png"))
    _print_summary(result, checks, console)
    console.print(f"report: {target}, picture: {target.with_suffix('.png')}")
    return 0 if all(check.ok for check in checks) else 1


# Before the play


def _report_target(target: Path) -> Path:
    """The report's file, which can be written. Raises ConfigError now rather than after a minute."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--report {target} cannot be written: {error.strerror}; name another file") from None
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        raise ConfigError(f"--report {target} cannot be written: give a file in a folder of yours")
    return target


def _model(model: Path | None, home: Path, console: Console) -> Path:
    if model is not None:
        if not model.is_file():
            raise ModelError(f"{model} is not there: give the path of an ONNX file")
        return model
    with console.status("building EfficientNet-Lite0 from its trained weights"):
        return efficientnet.build(home / "efficientnet_lite0.onnx")


def _register(path: Path, home: Path, console: Console) -> Path:
    """The state folder of a gateway that knows the model; measured once and kept."""
    session = open_session(path)
    sources = {info.name: InputSource(info.shape, info.dtype) for info in session.inputs}
    samples = [
        {name: source.array(index * SAMPLE_STRIDE) for name, source in sources.items()} for index in range(SAMPLES)
    ]
    del session
    state_dir = home / "gateway"
    registry = Registry(state_dir)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                  console=console, transient=True) as progress:  # fmt: skip
        task = progress.add_task("reading the model", total=None)

        def step(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        registry.add(MODEL_NAME, path, samples=samples, progress=step, replace=True)
    return state_dir


# The play


def _play(stage: Stage, seconds: float, console: Console, *, headless: bool) -> _Play:
    play = _Play([], AnswerTail(stage.answers), Observer())
    play.observer.watch(stage.bus)
    stage.start_camera(fps=FPS, deadline_s=DEADLINE_S)
    with (
        Live(console=console, refresh_per_second=4, transient=True, screen=False) if not headless else _Quiet() as live
    ):
        _until_first_plan(stage, play, live)
        for phase in PHASES:
            begin = time.monotonic()
            if phase.link is None:
                stage.relay.cut()
            else:
                stage.relay.set(phase.link)
                stage.relay.restore()
            if headless:
                console.print(f"{phase.name}: {phase.describe()}")
            end = begin + phase.share * seconds
            _watch(stage, play, live, f"{phase.name} ({phase.describe()})", end, seconds)
            play.acts.append(Act(phase, begin, time.monotonic()))
    stage.stop(CAMERA)
    play.tail.read()
    return play


class _Quiet:
    """In place of a live view where nobody looks."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _until_first_plan(stage: Stage, play: _Play, live: Live | None) -> None:
    give_up = time.monotonic() + FIRST_PLAN_SECONDS
    while not _is_split(play) and time.monotonic() < give_up:
        _watch(stage, play, live, "profiling every node", time.monotonic() + 0.25, 0.0)


def _is_split(play: _Play) -> bool:
    return any(state.what.state == "active" and state.what.epoch > 0 for state in play.observer.plan_states)


def _watch(stage: Stage, play: _Play, live: Live | None, phase: str, until: float, total: float) -> None:
    while (now := time.monotonic()) < until:
        stage.check()
        play.tail.read()
        if live is not None:
            elapsed = now - play.acts[0].begin if play.acts else 0.0
            live.update(view(play.observer, play.tail.records, phase=phase, elapsed=elapsed, total=total or 1.0))
        time.sleep(min(0.2, max(0.01, until - now)))


# After the play


def _compare(path: Path, records: Sequence[dict[str, Any]], stage: Stage, console: Console) -> Any:
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console,
                  transient=True) as progress:  # fmt: skip
        task = progress.add_task("checking every answer against the un-split model", total=len(records))
        return compare(path, records, stage.outputs, lambda done: progress.update(task, completed=done))


def _frames_asked(records: Sequence[dict[str, Any]]) -> int:
    return max((record["index"] for record in records), default=-1) + 1


def _moves(records: Sequence[dict[str, Any]], begin: float) -> int:
    """How often consecutive frames were cut elsewhere, once the play had begun; local fallbacks do not count."""
    ordered = sorted(records, key=lambda record: int(record["index"]))
    splits = [tuple(record["cuts"]) for record in ordered if not record["reason"] and record["asked"] >= begin]
    return sum(before != after for before, after in pairwise(splits))


def _plan_changes(play: _Play) -> list[dict[str, Any]]:
    begin = play.acts[0].begin
    return [_change(seen, begin) for seen in play.observer.decisions]


def _change(seen: Seen, begin: float) -> dict[str, Any]:
    decision = seen.what
    return {
        "second": round(seen.at - begin, 2),
        "epoch": decision.epoch,
        "split": split_of(decision),
        "why": decision.why,
        "predicted_ms": decision.chosen.predicted_ms,
        "runner_up": decision.runner_up.label if decision.runner_up is not None else None,
    }


def _report(
    path: Path, broker: str, speeds: Speeds, play: _Play, changes: list[dict[str, Any]], checks: Sequence[Check]
) -> dict[str, Any]:
    return {
        "title": f"{path.name}, camera at 1/{speeds.camera:g} of this machine's speed, {FPS:g} frames a second",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "broker": broker,
        "speeds": asdict(speeds),
        "fps": FPS,
        "deadline_ms": DEADLINE_S * 1e3,
        "phases": [_phase(act, play.tail.records) for act in play.acts],
        "plan_changes": changes,
        "checks": [asdict(check) for check in checks],
        "alerts": [seen.what.reason for seen in play.observer.alerts],
        "ok": all(check.ok for check in checks),
    }


def _phase(act: Act, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mine = [r for r in records if act.begin <= r["asked"] < act.end]
    times = sorted(r["total_ms"] for r in mine)
    return {
        "phase": act.phase.name,
        "link": act.phase.describe(),
        "frames": len(mine),
        "p50_ms": round(statistics.median(times), 1) if times else None,
        "p95_ms": round(times[min(int(0.95 * len(times)), len(times) - 1)], 1) if times else None,
        "routes": dict(Counter(" > ".join(r["route"]) for r in mine)),
        "splits": dict(Counter(_words(r) for r in mine)),
        "late": sum(r["late"] for r in mine),
        "fallbacks": dict(Counter(r["reason"] for r in mine if r["reason"])),
    }


def _words(record: dict[str, Any]) -> str:
    return ", ".join(f"{cut}/{codec}" for cut, codec in zip(record["cuts"], record["codecs"], strict=True)) or "local"


def _print_summary(report: dict[str, Any], checks: Sequence[Check], console: Console) -> None:
    table = Table(title=report["title"], title_justify="left")
    for column in ("phase", "link", "frames", "p50 ms", "p95 ms", "late", "answered by", "cut/codec"):
        table.add_column(column, justify="right" if column in ("frames", "p50 ms", "p95 ms", "late") else "left")
    for phase in report["phases"]:
        counts = ["\n".join(f"{count} x {key}" for key, count in phase[part].items()) for part in ("routes", "splits")]
        figures = [str(phase[key]) for key in ("frames", "p50_ms", "p95_ms", "late")]
        table.add_row(phase["phase"], phase["link"], *figures, *counts)
    console.print(table)
    for change in report["plan_changes"]:
        console.print(f"[bold]{change['second']:6.1f} s  plan {number_of(change['epoch'])}: {change['split']}[/]")
        console.print(f"          {change['why']}", style="dim", highlight=False)
    for check in checks:
        mark = "[green]ok[/]    " if check.ok else "[red]FAILED[/]"
        console.print(f"{mark} {check.name}: {check.detail}", highlight=False)
