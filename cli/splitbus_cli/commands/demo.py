"""`splitbus demo`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    seconds: Annotated[float, typer.Option(metavar="S", help="How long the camera runs.")] = 60.0,
    headless: Annotated[bool, typer.Option("--headless", help="No live view.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON report; a picture goes beside it.")] = None,
    model: Annotated[Path | None, typer.Option(metavar="FILE", help="An ONNX model of your own.")] = None,
    slowdown: Annotated[
        float | None, typer.Option(min=1.0, metavar="X", help="How much slower the camera is than this machine.")
    ] = None,
) -> None:
    """Play a site on this machine: one camera, two workers, and a link that gets poor, breaks and comes back.

    Example: splitbus demo --seconds 60 --report demo.json
    """
    from splitbus_demo.run import DEFAULT_CAMERA_SLOWDOWN, run_demo

    slow = DEFAULT_CAMERA_SLOWDOWN if slowdown is None else slowdown
    raise typer.Exit(run_demo(seconds=seconds, headless=headless, report=report, model=model, slowdown=slow))
