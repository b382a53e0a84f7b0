"""`splitbus top`: a site at a glance, live or once."""

from __future__ import annotations

import json
import queue
import time
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from splitbus_cli.board import Board, filters
from splitbus_cli.connection import Connection, connected
from splitbus_cli.options import Target
from splitbus_cli.rows import Row, link_rows, node_rows, snapshot, stream_rows
from splitbus_cli.tables import add_row, new_table, state_text
from splitbus_cli.text import milliseconds, percent, printable, rate

REFRESH_SECONDS: Final = 0.5


def top(target: Target, *, once: bool, as_json: bool) -> None:
    """Show the site until interrupted, or once. Raises ConfigError, BusError."""
    board = Board()
    with connected(target) as bus:
        for delivery in bus.retained(filters(bus.site)):
            board.apply(delivery)
        if once and as_json:
            print(json.dumps(snapshot(board), indent=2))
        elif once:
            Console().print(view(board, bus))
        else:
            _live(board, bus, as_json=as_json)


def _live(board: Board, bus: Connection, *, as_json: bool) -> None:
    if as_json:
        while True:
            print(json.dumps(snapshot(board)), flush=True)
            _collect(board, bus, REFRESH_SECONDS * 2)
    with Live(view(board, bus), screen=Console().is_terminal, auto_refresh=False) as live:
        while True:
            _collect(board, bus, REFRESH_SECONDS)
            live.update(view(board, bus), refresh=True)


def _collect(board: Board, bus: Connection, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            board.apply(bus.inbox.get(timeout=left))
        except queue.Empty:
            return


def view(board: Board, bus: Connection) -> RenderableType:
    """The site as tables."""
    problem = "" if bus.bus.connected else " (connection lost, trying again)"
    parts: list[RenderableType] = [
        Text.assemble(("splitbus", "bold"), f" site {bus.site} at {bus.address}", (problem, "red")),
        nodes_table(node_rows(board)),
        links_table(link_rows(board)),
        streams_table(stream_rows(board)),
    ]
    if not board.status:
        parts.append(Text("No node has spoken at this site: start `splitbus gateway` and `splitbus worker`."))
    parts += [Text(f"{alert.node}: {alert.what}: {printable(alert.reason)}", style="yellow") for alert in board.alerts]
    return Group(*parts)


def nodes_table(rows: list[Row]) -> Table:
    """Nodes: tier, state, load, sessions, round trip to the broker."""
    table = new_table("nodes", "node", "tier", "state", "busy", "queue", "lanes", "sessions", "memory", "broker rtt")
    for row in rows:
        known = "busy" in row
        load = (
            [
                percent(row["busy"]),
                str(row["queued"]),
                str(row["concurrency"]),
                str(row["sessions"]),
                f"{row['sessions_mb']:.0f} MB",
                milliseconds(row["broker_rtt_ms"]),
            ]
            if known
            else ["-"] * 6
        )
        slow = f"{row['pace']:g} times slower than usual" if row["pace"] else None
        add_row(table, row["node"], row["tier"], state_text(row["state"], row["reason"] or slow), *load)
    return table


def links_table(rows: list[Row]) -> Table:
    """Links: round trip, goodput both ways, and how sure the sender is."""
    table = new_table("links", "from", "to", "rtt", "up Mbit/s", "down Mbit/s", "loss", "samples", "sure", "source")
    for row in rows:
        add_row(
            table,
            row["node"],
            row["peer"],
            milliseconds(row["rtt_ms"]),
            rate(row["up_mbit"]),
            rate(row["down_mbit"]),
            percent(row["loss"]),
            str(row["samples"]),
            percent(row["confidence"]),
            row["source"],
        )
    return table


def streams_table(rows: list[Row]) -> Table:
    """Streams: the plan, what the device makes of it, how its frames do, and what was foretold of them."""
    table = new_table(
        "streams", "device", "model", "state", "cuts", "frames go", "fps", "p50 ms", "p95 ms", "told ms", "drops"
    )
    for row in rows:
        fps = row.get("fps")
        add_row(
            table,
            row["device"],
            row["model"],
            state_text(row["state"], row["state_reason"]),
            row["cuts"] or "-",
            row.get("frames_route") or row["route"] or "-",
            "-" if fps is None else f"{fps:.1f}",
            milliseconds(row.get("p50_ms")).removesuffix(" ms"),
            milliseconds(row.get("p95_ms")).removesuffix(" ms"),
            milliseconds(row["predicted_ms"]).removesuffix(" ms"),
            str(row.get("counters", {}).get("dropped", 0)),
        )
    return table
