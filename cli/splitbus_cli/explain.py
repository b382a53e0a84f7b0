"""A decision of the gateway as text: why, each step as predicted and as measured, what else was priced. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from splitbus_cli.board import Board, StreamKey
from splitbus_cli.rows import cuts_text, reported
from splitbus_cli.text import milliseconds, percent, rate, size
from splitbus_gateway.checks import beside
from splitbus_schemas.messages import Candidate, Decision, LinkReport, NodeInput, Step, StreamStats


def stages_beside(
    predicted: Sequence[Step], measured: Sequence[Step], total_ms: float | None = None
) -> list[dict[str, Any]]:
    """One row a stage: all computing on a node, its queue, the links of a round; then what no step accounts for."""
    return [
        {
            "what": stage.what,
            "where": stage.where,
            "predicted_ms": _rounded(stage.predicted_ms),
            "measured_ms": _rounded(stage.measured_ms),
            "ratio": _rounded(stage.ratio),
        }
        for stage in beside(predicted, measured, total_ms)
    ]


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 3)


def facts(board: Board, key: StreamKey, decision: Decision) -> dict[str, Any]:
    """All of `splitbus plan explain` for JSON."""
    stats = _stats(board, key, decision)
    steps, total_ms = _measured(decision, stats)
    return {
        "decision": decision.model_dump(exclude={"v"}, exclude_none=True),
        "state": reported(board, key),
        "stages": stages_beside(decision.chosen.steps, steps, total_ms),
        "measured_p50_ms": stats.p50_ms if stats else None,
        "measured_cut_bytes": stats.cut_bytes if stats else [],
    }


def _measured(decision: Decision, stats: StreamStats | None) -> tuple[Sequence[Step], float | None]:
    """Over the plan's time so far as the gateway has it, or else the device's last second."""
    if decision.measured:
        return decision.measured, decision.measured_ms
    return (stats.steps, stats.p50_ms) if stats else ((), None)


def text(board: Board, key: StreamKey, decision: Decision) -> str:
    """The decision as lines for people."""
    return "\n".join(_lines(board, key, decision))


def _lines(board: Board, key: StreamKey, decision: Decision) -> Iterator[str]:
    stats = _stats(board, key, decision)
    plan = f"plan {decision.plan}, epoch {decision.epoch}, {reported(board, key)}"
    yield f"{decision.device} runs {decision.name} by {plan}"
    yield f"decided {decision.at}, {decision.considered} ways priced{'' if decision.changed else ', nothing changed'}"
    yield f"why: {decision.why}"
    if decision.cause is not None:
        yield f"cause: {decision.cause}"
    yield f"minimises {_weights(decision)}{_limits(decision)}"
    yield from (f"not kept: {what}" for what in decision.unmet)
    if (pin := board.pins.get(key)) is not None:
        nodes = ", ".join(pin.nodes) or "free"
        yield f"pinned{f' by {pin.by}' if pin.by else ''}: cuts {cuts_text(pin.cuts)}, nodes {nodes}"
    yield ""
    measured = f", measured {milliseconds(stats.p50_ms)} (p50)" if stats and stats.p50_ms is not None else ""
    off = f", {decision.off:+.0%} of late" if decision.off is not None else ""
    yield f"chosen: {_candidate(decision.chosen)}{measured}{off}"
    yield from _stage_lines(decision, stats)
    if decision.runner_up is not None:
        more = decision.runner_up.predicted_ms - decision.chosen.predicted_ms
        than = f"{milliseconds(abs(more))} {'slower' if more >= 0 else 'faster'}"
        yield f"next best: {_candidate(decision.runner_up)}, {than}"
    yield from (f"  wins with {flip.text}" for flip in decision.flips)
    if decision.before is not None:
        yield f"before: {_candidate(decision.before)}"
    yield from (f"link {_link(link)}" for link in decision.links)
    yield from (f"node {_node(node)}" for node in decision.nodes)
    yield from (f"left out: {what}" for what in decision.blocked)


def _weights(decision: Decision) -> str:
    weights = decision.objective or {"latency": 1.0}
    return ", ".join(name if weight == 1 else f"{weight:g} x {name}" for name, weight in weights.items())


def _limits(decision: Decision) -> str:
    parts = (
        f"{name} {', '.join(value) if isinstance(value, list) else f'{value:g}'}"
        for name, value in decision.limits.items()
    )
    return f" within {'; '.join(parts)}" if decision.limits else ""


def _candidate(candidate: Candidate) -> str:
    shown = f", pictures rebuilt {candidate.rebuilt:.2f} alike" if candidate.rebuilt else ""
    return f"{candidate.label}: {milliseconds(candidate.predicted_ms)} predicted{shown}"


def _stage_lines(decision: Decision, stats: StreamStats | None) -> Iterator[str]:
    steps, total_ms = _measured(decision, stats)
    rows = stages_beside(decision.chosen.steps, steps, total_ms)
    if not rows:
        return
    width = max(len(f"{row['what']} {row['where']}") for row in rows)
    yield f"  {'':{width}}  {'predicted':>10}  {'measured':>10}  {'ratio':>5}"
    for row in rows:
        name = f"{row['what']} {row['where']}"
        predicted, measured = milliseconds(row["predicted_ms"]), milliseconds(row["measured_ms"])
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        yield f"  {name:{width}}  {predicted:>10}  {measured:>10}  {ratio:>5}"
    sent = [f"{size(step.bytes)} {step.where}" for step in decision.chosen.steps if step.bytes]
    if sent:
        yield f"  sent: {', '.join(sent)}"


def _node(node: NodeInput) -> str:
    whole = "no profile" if node.whole_ms is None else f"whole model {milliseconds(node.whole_ms)}"
    pace = f", of late {node.pace:.2f} times its profile" if abs(node.pace - 1) >= 0.01 else ""
    wait = f", a job waits {milliseconds(node.wait_ms)}" if node.tier != "device" else ""
    return f"{node.node} ({node.tier}): {whole}{pace}{wait}"


def _link(link: LinkReport) -> str:
    return (
        f"{link.node}>{link.peer}: round trip {milliseconds(link.rtt_ms)}, up {rate(link.up_mbit)} Mbit/s, "
        f"down {rate(link.down_mbit)} Mbit/s, {percent(link.confidence)} sure"
    )


def _stats(board: Board, key: StreamKey, decision: Decision) -> StreamStats | None:
    """What was measured under this very plan."""
    stats = board.streams.get(key)
    return stats if stats is not None and stats.epoch == decision.epoch else None
