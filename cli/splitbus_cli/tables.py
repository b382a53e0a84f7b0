"""Tables as all commands print them: plain cells, never markup from the wire."""

from __future__ import annotations

from typing import Final

from rich.table import Table
from rich.text import Text

from splitbus_cli.text import printable

_STYLES: Final = {
    "ready": "green",
    "active": "green",
    "starting": "yellow",
    "loading": "yellow",
    "stopping": "yellow",
    "lost": "red",
    "device lost": "red",
    "failed": "red",
}


_WRAPPED: Final = ("state", "cuts", "frames go", "route", "tensors", "after", "inputs", "samples", "runs")
"""Columns that take several lines where the terminal is narrow; the others never do."""


def new_table(title: str | None, *columns: str) -> Table:
    """An empty table."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in _WRAPPED)
    return table


def add_row(table: Table, *cells: str | Text) -> None:
    """A row; what a terminal would obey is shown escaped."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells))


def state_text(state: str, reason: str | None = None) -> Text:
    """A state in its colour, with the reason if there is one."""
    return Text(printable(f"{state}: {reason}" if reason else state), style=_STYLES.get(state, ""))
