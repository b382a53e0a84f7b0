"""The rows of `splitbus top` and `splitbus plan show` as plain values: JSON holds them, tables format them. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias

from splitbus_cli.board import Board, StreamKey
from splitbus_schemas.messages import Plan, PlanCut, StreamStats

Row: TypeAlias = dict[str, Any]


def node_rows(board: Board) -> list[Row]:
    """One row a node, the lost ones too."""
    rows: list[Row] = []
    for name, status in sorted(board.status.items()):
        stats = board.stats.get(name)
        row: Row = {"node": name, "tier": status.tier, "state": status.state, "reason": status.reason}
        row["pace"] = status.pace
        if stats is not None and stats.boot == status.boot and status.state != "lost":
            row |= stats.model_dump(
                include={"busy", "queued", "concurrency", "sessions", "sessions_mb", "broker_rtt_ms", "uptime_s"}
            )
        rows.append(row)
    return rows


def link_rows(board: Board) -> list[Row]:
    """One row a link, as its sender sees it."""
    return [report.model_dump(exclude={"v"}) for _, report in sorted(board.links.items())]


def stream_rows(board: Board) -> list[Row]:
    """One row for each device and model."""
    return [_stream_row(board, key) for key in board.stream_keys()]


def _stream_row(board: Board, key: StreamKey) -> Row:
    device, model = key
    plan, state, stats, pin = (
        board.plans.get(key), board.states.get(key), board.streams.get(key), board.pins.get(key)
    )  # fmt: skip
    row: Row = {
        "device": device,
        "model": plan.name if plan else board.model_name(model),
        "model_key": model,
        "plan": plan.plan if plan else None,
        "epoch": plan.epoch if plan else None,
        "state": reported(board, key),
        "state_reason": state.reason if state else None,
        "cuts": cuts_text(plan.cuts) if plan else None,
        "route": route_text(plan) if plan else None,
        "alternates": [[stage.node for stage in route] for route in plan.routes[1:]] if plan else [],
        "predicted_ms": plan.predicted_ms if plan else None,
        "reason": plan.reason if plan else None,
        "pinned": pin.model_dump(exclude={"v"}) if pin else None,
    }
    return row | (_measured(stats) if stats else {})


def _measured(stats: StreamStats) -> Row:
    return {
        "fps": round(stats.frames / stats.period_s, 2),
        "frames_route": max(stats.routes, key=lambda route: stats.routes[route], default=None),
        "p50_ms": stats.p50_ms,
        "p95_ms": stats.p95_ms,
        "in_flight": stats.in_flight,
        "counters": stats.counters,
    }


def reported(board: Board, key: StreamKey) -> str:
    """What the device says of its plan: its own word, or that it has not spoken of this one yet."""
    plan, state = board.plans.get(key), board.states.get(key)
    if plan is None:
        return "no plan"
    if state is None or state.epoch < plan.epoch:
        status = board.status.get(key[0])
        return "device lost" if status is not None and status.state == "lost" else "not yet seen"
    return state.state


def cuts_text(cuts: list[PlanCut]) -> str:
    """`17/q8 > 48/raw`; `-` where nothing is cut."""
    return " > ".join(f"{cut.index}/{cut.codec}" for cut in cuts) or "-"


def route_text(plan: Plan) -> str:
    """The nodes of the plan's first route, the device first."""
    return " > ".join([plan.device, *(stage.node for stage in plan.routes[0])] if plan.routes else [plan.device])


def snapshot(board: Board) -> Row:
    """All of `splitbus top` for JSON."""
    return {
        "nodes": node_rows(board),
        "links": link_rows(board),
        "streams": stream_rows(board),
        "alerts": [alert.model_dump(exclude={"v"}, exclude_none=True) for alert in board.alerts],
        "broken_messages": board.broken,
    }
