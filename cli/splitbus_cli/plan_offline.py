"""`splitbus plan MODEL`: the best plan for a device, why not another, or all that are best in something."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from splitbus_cli.options import Target
from splitbus_cli.plan_question import Question, pose
from splitbus_cli.planning import Asked
from splitbus_cli.tables import add_row, new_table
from splitbus_cli.text import milliseconds, percent, printable, rate, size
from splitbus_gateway.drafts import candidate
from splitbus_gateway.pareto import pareto as pareto_of
from splitbus_gateway.planner import Choice, plan
from splitbus_gateway.pricing import Priced


def show(target: Target, model: str, asked: Asked, *, pareto: bool, as_json: bool) -> None:
    """Print the plan, or the Pareto list. Raises UnsatisfiableError with the constraint to blame."""
    question = pose(target, model, asked)
    choice = plan(question.problem, hard_deadline=True)
    ways = pareto_of(question.problem) if pareto else ()
    if as_json:
        print(json.dumps(facts(question, choice, ways), indent=2))
    elif pareto:
        _print_ways(question, choice, ways)
    else:
        print("\n".join(printable(line) for line in _lines(question, choice)))


def facts(question: Question, choice: Choice, ways: Sequence[Priced] = ()) -> dict[str, Any]:
    """All of it for JSON."""
    return {
        "model": question.model.name,
        "device": question.device,
        "objective": asdict(question.problem.objective),
        "chosen": _way_facts(question, choice.best),
        "runner_up": _way_facts(question, choice.runner_up) if choice.runner_up else None,
        "considered": choice.considered,
        "blocked": list(choice.blocked),
        "links": {
            f"{sender}>{receiver}": {"rtt_ms": link.rtt_ms, "up_mbit": link.up_mbit, "down_mbit": link.down_mbit}
            for (sender, receiver), link in sorted(question.problem.links.items())
        },
    } | ({"pareto": [_way_facts(question, way) for way in ways]} if ways else {})


def _way_facts(question: Question, way: Priced) -> dict[str, Any]:
    shown = candidate(question.model, question.problem, way).model_dump(exclude_none=True)
    return shown | {
        "agreement": round(1.0 - way.loss, 6),
        "interval_ms": round(way.interval_ms, 3),
        "bytes": round(way.bytes),
        "device_ms": round(way.device_ms, 3),
        "rebuilt": None if way.rebuilt is None else round(way.rebuilt, 4),
        "device_mb": None if way.device_mb is None else round(way.device_mb, 3),
    }


def _lines(question: Question, choice: Choice) -> Iterator[str]:
    best = choice.best
    yield f"{question.model.name} from {question.device}: {best.split}, {_figures(best)}"
    yield from _step_lines(best)
    if choice.runner_up is not None:
        yield f"next best: {choice.runner_up.split}, {_figures(choice.runner_up)}"
    if question.pinned_by is not None:
        yield f"the pin{f' by {question.pinned_by}' if question.pinned_by else ''} is left aside"
    yield f"{choice.considered} ways priced"
    for (sender, receiver), link in sorted(question.problem.links.items()):
        if sender == question.device:
            yield (
                f"link {sender}>{receiver}: round trip {milliseconds(link.rtt_ms)}, up {rate(link.up_mbit)} Mbit/s, "
                f"down {rate(link.down_mbit)} Mbit/s"
            )
    yield from (f"left out: {what}" for what in choice.blocked)


def _figures(way: Priced) -> str:
    parts = [
        f"{milliseconds(way.ms)} predicted",
        f"{1e3 / way.interval_ms:.1f} frames/s at most" if way.interval_ms else "",
        f"{size(way.bytes)} over links" if way.bytes else "nothing over links",
        f"{percent(1.0 - way.loss)} of answers the same" if way.loss else "",
        f"pictures rebuilt {way.rebuilt:.2f} alike" if way.rebuilt else "",
    ]
    return ", ".join(part for part in parts if part)


def _step_lines(way: Priced) -> Iterator[str]:
    width = max(len(f"{step.what} {step.where}") for step in way.steps)
    for step in way.steps:
        sent = f"  {size(step.bytes)}" if step.bytes else ""
        yield f"  {step.what + ' ' + step.where:{width}}  {milliseconds(step.ms):>10}{sent}"


def _print_ways(question: Question, choice: Choice, ways: Sequence[Priced]) -> None:
    table = new_table(
        None, "", "runs", "latency", "agreement", "links", "rebuilt", "device MB", "device ms", "frames/s"
    )
    for way in ways:
        add_row(
            table,
            "*" if way.split == choice.best.split else "",
            str(way.split),
            milliseconds(way.ms),
            f"{1.0 - way.loss:.3f}",
            size(way.bytes),
            "-" if way.rebuilt is None else f"{way.rebuilt:.2f}",
            "-" if way.device_mb is None else f"{way.device_mb:.1f}",
            f"{way.device_ms:.1f}",
            f"{1e3 / way.interval_ms:.1f}" if way.interval_ms else "-",
        )
    Console().print(table)
    print(f"{len(ways)} of {choice.considered} ways are best in something for {question.device} (* would be chosen)")
