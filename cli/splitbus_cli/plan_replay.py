"""`splitbus plan replay`: a link's trace through the planner and its rivals, as text, JSON or a picture."""
# ruff: noqa: PLC0415 - matplotlib comes with the extra `demo`, and is needed for pictures alone

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from splitbus_cli.options import Target
from splitbus_cli.plan_question import Question, pose
from splitbus_cli.planning import Asked
from splitbus_cli.progress import progress_bar
from splitbus_cli.rows import Row
from splitbus_cli.tables import add_row, new_table
from splitbus_cli.text import printable
from splitbus_gateway.atlas import access_link
from splitbus_gateway.replay import DEFAULT_FPS, Course, Replay, replay
from splitbus_gateway.trace import Trace, parse_trace
from splitbus_schemas.errors import ConfigError

SEGMENTS_SHOWN: Final = 20

_SHORT: Final = {
    "splitbus": "ours",
    "best-static": "static",
    "all-local": "local",
    "image-upload": "image",
    "neurosurgeon": "neuros.",
    "dynamic-split": "dyn.sp.",
    "dyno-like": "dyno",
}
"""Names of policies above narrow columns."""


def show(
    target: Target, path: Path, model: str, asked: Asked, *, to: str | None, out: Path | None, as_json: bool
) -> None:
    """Run the trace and print what came of it. Raises ConfigError naming the line that is wrong."""
    trace = read_trace(path)
    question = pose(target, model, asked)
    found = run(question, trace, to)
    if out:
        from splitbus_cli.plan_pictures import draw_replay

        draw_replay(found, f"{question.model.name} from {question.device} along {path.name}", out)
    if as_json:
        print(json.dumps(facts(found), indent=2))
        return
    print_replay(found)
    if out:
        print(f"wrote {out}")


def read_trace(path: Path) -> Trace:
    """The trace in a file. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8") as file:
            return parse_trace(file, str(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{path} cannot be read: {why}; give a CSV of seconds, Mbit/s up and down, ms") from error


def run(question: Question, trace: Trace, to: str | None) -> Replay:
    """The replay of a question, with a progress bar."""
    link = access_link(question.problem, to)
    with progress_bar() as progress:
        task = progress.add_task("replaying frames", total=None)
        return replay(
            question.world,
            question.problem,
            question.model,
            link,
            trace,
            question.settings,
            fps=question.demands.frames_per_s or DEFAULT_FPS,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )


def facts(found: Replay) -> dict[str, Any]:
    """All of a replay but its single frames, for JSON."""
    return {
        "frames": len(found.at),
        "seconds": round(found.trace.seconds, 3),
        "hindsight_ms": round(float(found.best_ms.mean()), 3),
        "policies": [_course_row(found, course) for course in found.courses],
        "changes": [{"at": round(c.at, 3), "plan": str(c.split), "why": c.why} for c in found.changes],
        "segments": [
            {
                "begin": segment.begin,
                "end": segment.end,
                "up_mbit": round(segment.mean.up_mbit, 3),
                "rtt_ms": round(segment.mean.rtt_ms, 3),
                "hindsight": str(segment.best),
                "hindsight_ms": _mean(found.best_ms[segment.frames]),
                "ms": {course.name: _mean(course.ms[segment.frames]) for course in found.courses},
            }
            for segment in found.segments
        ],
    }


def _course_row(found: Replay, course: Course) -> Row:
    mean = float(course.ms.mean())
    return {
        "policy": course.name,
        "about": course.about,
        "mean_ms": round(mean, 3),
        "p50_ms": round(float(np.median(course.ms)), 3),
        "p95_ms": round(float(np.quantile(course.ms, 0.95)), 3),
        "regret_ms": round(found.regret_ms(course), 3),
        "of_hindsight": round(mean / float(found.best_ms.mean()), 4),
        "changes": course.changes,
        "plans": [str(split) for split in course.splits],
    }


def _mean(values: Any) -> float | None:
    return round(float(values.mean()), 3) if len(values) else None


def print_replay(found: Replay) -> None:
    """The replay as tables."""
    console = Console()
    table = new_table(None, "policy", "mean ms", "p50", "p95", "regret", "x best", "changes", "runs")
    for row in (_course_row(found, course) for course in found.courses):
        plans = row["plans"]
        more = f" and {len(plans) - 1} more" if len(plans) > 1 else ""
        figures = [f"{row[name]:.1f}" for name in ("mean_ms", "p50_ms", "p95_ms", "regret_ms")]
        add_row(
            table, row["policy"], *figures, f"{row['of_hindsight']:.2f}", str(row["changes"]), f"{plans[0]}{more}"
        )  # fmt: skip
    console.print(table)
    print()
    console.print(_segments_table(found))
    if len(found.segments) > SEGMENTS_SHOWN:
        print(f"and {len(found.segments) - SEGMENTS_SHOWN} segments more: --json has them all")
    print()
    for change in found.changes:
        print(printable(f"{change.at:8.2f} s  {change.split}: {change.why}"))
    print(
        f"{len(found.at)} frames over {found.trace.seconds:g} s; hindsight takes {found.best_ms.mean():.1f} ms a frame"
    )


def _segments_table(found: Replay) -> Any:
    names = [_SHORT.get(course.name, course.name) for course in found.courses]
    table = new_table("mean ms by segment", "seconds", "Mbit/s", "rtt", "best", *names)
    for segment in found.segments[:SEGMENTS_SHOWN]:
        columns = (found.best_ms, *(course.ms for course in found.courses))
        cells = [_mean(column[segment.frames]) for column in columns]
        add_row(
            table,
            f"{segment.begin:g}-{segment.end:g}",
            f"{segment.mean.up_mbit:.1f}",
            f"{segment.mean.rtt_ms:.0f}",
            *("-" if cell is None else f"{cell:.0f}" if cell >= 100 else f"{cell:.1f}" for cell in cells),
        )
    return table
