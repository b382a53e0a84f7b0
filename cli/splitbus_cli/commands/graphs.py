"""`splitbus cuts` and `splitbus verify`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitbus_cli.options import AsJson

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")]
Inputs = Annotated[Path | None, typer.Option(metavar="FILE", help="Inputs by name, .npz, or .npy for a single one.")]


def cuts(
    model: Model,
    every: Annotated[bool, typer.Option("--all", help="Places that cannot be cut as well, and why.")] = False,
    inputs: Inputs = None,
    as_json: AsJson = False,
) -> None:
    """List where a model can be cut, and what crosses there.

    Example: splitbus cuts person.onnx
    """
    from splitbus_cli import cuts

    cuts.show_cuts(model, inputs=inputs, every=every, as_json=as_json)


def verify(
    model: Model,
    inputs: Inputs = None,
    codec: Annotated[str, typer.Option(metavar="C", help="Codec at the cut; lossy ones need a --tolerance.")] = "raw",
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="X", help="Of the largest output. (default: 1e-4; float16 1e-2, 8-bit 5e-2)"),
    ] = None,
    cut: Annotated[list[int] | None, typer.Option(metavar="I", help="This cut; again for more. (default: all)")] = None,
    as_json: AsJson = False,
) -> None:
    """Run head and tail against the whole model at every cut; exit 1 when one differs.

    Example: splitbus verify person.onnx --inputs frames.npz
    """
    from splitbus_cli.cuts import verify_cuts

    ok = verify_cuts(model, inputs=inputs, codec=codec, tolerance=tolerance, cuts=cut or (), as_json=as_json)
    raise typer.Exit(0 if ok else 1)
