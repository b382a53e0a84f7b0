"""A decision of the gateway as text: why, each step as predicted and as measured, what else was priced. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from splitbus_cli.board import Board, StreamKey
from splitbus_cli.rows import cuts_text, reported
from splitbus_cli.text import milliseconds, percent, rate, size
from splitbus_schemas.messages import Candidate, Decision, LinkReport, Step, StreamStats

_Steps: TypeAlias = dict[tuple[str, str], tuple[float, int | None]]
"""Milliseconds and bytes by kind and place."""


def steps_beside(predicted: Sequence[Step], measured: Sequence[Step]) -> list[dict[str, Any]]:
    """One row a step, in the predicted order, then what was measured and not predicted.

    Steps of the same kind at the same place are one step: their times and bytes are summed. Durations tell only the
    links of a whole round together, a>b>a: beside it stands the sum of what was predicted of each.
    """
    first, second = _summed(predicted), _summed(measured)
    rounds = {(what, where): _links_of(where, first) for what, where in second if what == "link"}
    first |= {step: ms_and_bytes for step, ms_and_bytes in rounds.items() if ms_and_bytes and step not in first}
    return [
        {
            "what": what,
            "where": where,
            "predicted_ms": _rounded(first.get((what, where), (None, None))[0]),
            "measured_ms": _rounded(second.get((what, where), (None, None))[0]),
            "bytes": first.get((what, where), (None, None))[1],
        }
        for what, where in dict.fromkeys([*first, *second])
    ]


def _links_of(where: str, steps: _Steps) -> tuple[float, int | None] | None:
    """What the links of a path take together; None unless all of them are there."""
    found = [steps.get(("link", f"{a}>{b}")) for a, b in pairwise(where.split(">"))]
    known = [step for step in found if step is not None]
    return (sum(ms for ms, _ in known), None) if known and len(known) == len(found) else None


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)


def _summed(steps: Sequence[Step]) -> _Steps:
    total: _Steps = {}
    for step in steps:
        ms, count = total.get((step.what, step.where), (0.0, None))
        both = [n for n in (count, step.bytes) if n is not None]
        total[step.what, step.where] = (ms + step.ms, sum(both) if both else None)
    return total


def facts(board: Board, key: StreamKey, decision: Decision) -> dict[str, Any]:
    """All of `splitbus plan explain` for JSON."""
    stats = _stats(board, key, decision)
    return {
        "decision": decision.model_dump(exclude={"v"}, exclude_none=True),
        "state": reported(board, key),
        "steps": steps_beside(decision.chosen.steps, stats.steps if stats else ()),
        "measured_p50_ms": stats.p50_ms if stats else None,
        "measured_cut_bytes": stats.cut_bytes if stats else [],
    }


def text(board: Board, key: StreamKey, decision: Decision) -> str:
    """The decision as lines for people."""
    return "\n".join(_lines(board, key, decision))


def _lines(board: Board, key: StreamKey, decision: Decision) -> Iterator[str]:
    stats = _stats(board, key, decision)
    plan = f"plan {decision.plan}, epoch {decision.epoch}, {reported(board, key)}"
    yield f"{decision.device} runs {decision.name} by {plan}"
    yield f"decided {decision.at}, {decision.considered} ways priced{'' if decision.changed else ', nothing changed'}"
    yield f"why: {decision.why}"
    if (pin := board.pins.get(key)) is not None:
        nodes = ", ".join(pin.nodes) or "free"
        yield f"pinned{f' by {pin.by}' if pin.by else ''}: cuts {cuts_text(pin.cuts)}, nodes {nodes}"
    yield ""
    measured = f", measured {milliseconds(stats.p50_ms)} (p50)" if stats and stats.p50_ms is not None else ""
    yield f"chosen: {_candidate(decision.chosen)}{measured}"
    yield from _step_lines(decision, stats)
    if decision.runner_up is not None:
        more = decision.runner_up.predicted_ms - decision.chosen.predicted_ms
        than = f"{milliseconds(abs(more))} {'slower' if more >= 0 else 'faster'}"
        yield f"next best: {_candidate(decision.runner_up)}, {than}"
    if decision.before is not None:
        yield f"before: {_candidate(decision.before)}"
    yield from (f"link {_link(link)}" for link in decision.links)
    yield from (f"left out: {what}" for what in decision.blocked)


def _candidate(candidate: Candidate) -> str:
    return f"{candidate.label}: {milliseconds(candidate.predicted_ms)} predicted"


def _step_lines(decision: Decision, stats: StreamStats | None) -> Iterator[str]:
    rows = steps_beside(decision.chosen.steps, stats.steps if stats else ())
    if not rows:
        return
    width = max(len(f"{row['what']} {row['where']}") for row in rows)
    yield f"  {'':{width}}  {'predicted':>10}  {'measured':>10}"
    for row in rows:
        name = f"{row['what']} {row['where']}"
        predicted, measured = milliseconds(row["predicted_ms"]), milliseconds(row["measured_ms"])
        sent = f"  {size(row['bytes'])}" if row["bytes"] else ""
        yield f"  {name:{width}}  {predicted:>10}  {measured:>10}{sent}"


def _link(link: LinkReport) -> str:
    return (
        f"{link.node}>{link.peer}: round trip {milliseconds(link.rtt_ms)}, up {rate(link.up_mbit)} Mbit/s, "
        f"down {rate(link.down_mbit)} Mbit/s, {percent(link.confidence)} sure"
    )


def _stats(board: Board, key: StreamKey, decision: Decision) -> StreamStats | None:
    """What was measured under this very plan."""
    stats = board.streams.get(key)
    return stats if stats is not None and stats.epoch == decision.epoch else None
