"""`splitbus profile`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitbus_cli.options import AsJson


def profile(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    threads: Annotated[
        int, typer.Option(min=0, max=1024, metavar="N", help="Threads for one frame; 0 leaves it to onnxruntime.")
    ] = 0,
    slowdown: Annotated[
        float,
        typer.Option(min=1.0, max=1000.0, metavar="X", help="As a machine X times slower; exact with --threads 1."),
    ] = 1.0,
    cuts: Annotated[
        bool, typer.Option("--cuts", help="Time head and tail at every cut too, against what the profile predicts.")
    ] = False,
    as_json: AsJson = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the profile there, for splitbus plan --profile.")
    ] = None,
) -> None:
    """Time a model's blocks on this machine, as a node does.

    Example: splitbus profile person.onnx --threads 1 --out camera.json
    """
    from splitbus_cli.profiles import Machine, show_profile

    show_profile(model, Machine(threads, slowdown), check=cuts, as_json=as_json, out=out)
