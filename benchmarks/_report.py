"""What the benchmarks share: options, the line that names the machine, the table, the JSON list of figures."""

from __future__ import annotations

import json
import os
import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from splitbus_runtime.processor import processor


@dataclass(frozen=True)
class Figure:
    """One measured number; `name` is dotted and stays the same from run to run."""

    name: str
    value: float
    unit: str
    detail: str = ""


def parser(description: str | None) -> ArgumentParser:
    """The options that all benchmarks take: --models DIR, --images DIR, --json FILE."""
    options = ArgumentParser(description=description)
    options.add_argument("--models", type=Path, metavar="DIR", help="folder of .onnx files to measure")
    options.add_argument("--images", type=Path, metavar="DIR", help="folder of pictures to measure with")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return options


def with_pictures(options: ArgumentParser) -> Namespace:
    """What was given, models and the pictures that calibrate them among it; ends with a sentence without these."""
    given = options.parse_args()
    if given.models is None or given.images is None:
        options.error("it needs models and pictures to calibrate them: give --models DIR and --images DIR")
    return given


WIDE: Final = 160
"""Columns of a table in a file."""


def machine() -> str:
    """Processor, cores and versions, in one line."""
    parts = [processor(), f"{os.cpu_count()} cores", platform.system(), f"Python {platform.python_version()}"]
    return ", ".join([*parts, f"onnxruntime {version('onnxruntime')}"])


def report(title: str, figures: Sequence[Figure], json_file: Path | None = None) -> None:
    """Print the figures as a table under the machine's line, and write them to `json_file`."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    table = Table(title=title, title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("detail", overflow="fold")
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:.4g}", figure.unit, figure.detail)
    console.print(machine(), highlight=False)
    console.print(table)
    if json_file:
        json_file.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n", encoding="utf-8")
