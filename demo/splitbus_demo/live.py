"""The demo's live view: link, split, codec, latency by stage, and why the plan changed."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from splitbus_demo.observer import Observer
from splitbus_schemas.messages import Decision, LinkReport
from splitbus_schemas.terms import number_of

RECENT_FRAMES = 30
BAR_WIDTH = 30
CHANGES_SHOWN = 5
COLOURS = {"run": "green", "encode": "yellow", "decode": "yellow", "link": "blue", "queue": "red"}


def split_of(decision: Decision) -> str:
    """The plan in a few words: nodes, cuts and codecs."""
    cuts = ", ".join(f"{cut.index}/{cut.codec}" for cut in decision.chosen.cuts)
    return " > ".join(decision.chosen.nodes) + (f"  cut {cuts}" if cuts else "  whole model")


def view(
    observer: Observer, records: Sequence[dict[str, Any]], *, phase: str, elapsed: float, total: float
) -> RenderableType:
    """The whole screen."""
    with observer.lock:
        decisions = list(observer.decisions)
        links = sorted(observer.links.values(), key=lambda link: (link.node, link.peer))
    recent = records[-RECENT_FRAMES:]
    head = Table.grid(padding=(0, 2))
    head.add_row("link", Text(phase, style="bold"), ProgressBar(total=total, completed=elapsed, width=BAR_WIDTH))
    head.add_row("split", split_of(decisions[-1].what) if decisions else "waiting for profiles and a first plan", "")
    head.add_row("frames", _frames(records), "")
    return Group(
        Panel(head, title="splitbus demo", title_align="left"),
        Columns([Panel(_stages(recent), title="latency by stage"), Panel(_links(links), title="links as measured")]),
        Panel(_changes([seen.what for seen in decisions]), title="why the plan changed", title_align="left"),
    )


def _frames(records: Sequence[dict[str, Any]]) -> str:
    local = sum(len(record["route"]) == 1 for record in records)
    last = records[-1]["total_ms"] if records else 0.0
    return f"{len(records)} answered, {local} on the camera itself; the last took {last:.0f} ms"


def _stages(recent: Sequence[dict[str, Any]]) -> RenderableType:
    """Medians over the newest frames that took the commonest route among them."""
    table = Table.grid(padding=(0, 1))
    if not recent:
        return table
    route, _ = Counter(tuple(record["route"]) for record in recent).most_common(1)[0]
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for record in recent:
        if tuple(record["route"]) == route:
            for step in record["steps"]:
                times[step["what"], step["where"]].append(step["ms"])
    medians = {key: statistics.median(values) for key, values in times.items()}
    longest = max(medians.values(), default=1.0) or 1.0
    for (what, where), ms in medians.items():
        bar = Text("█" * max(1, round(BAR_WIDTH * ms / longest)), style=COLOURS.get(what, "white"))
        table.add_row(what, where, f"{ms:7.1f} ms", bar)
    table.add_row("[bold]all[/]", " > ".join(route), f"{sum(medians.values()):7.1f} ms", "")
    return table


def _links(links: Sequence[LinkReport]) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for title in ("link", "round trip", "up", "down", "sure"):
        table.add_column(title, justify="left" if title == "link" else "right")
    for link in links:
        table.add_row(
            f"{link.node} > {link.peer}",
            _number(link.rtt_ms, "ms"),
            _number(link.up_mbit, "Mbit/s"),
            _number(link.down_mbit, "Mbit/s"),
            f"{link.confidence:.0%}",
        )
    return table


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f} {unit}"


def _changes(decisions: Sequence[Decision]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for decision in decisions[-CHANGES_SHOWN:]:
        table.add_row(f"plan {number_of(decision.epoch)}", split_of(decision), f"{decision.chosen.predicted_ms:.0f} ms")
        table.add_row("", Text(decision.why, style="dim"), "")
    return table
