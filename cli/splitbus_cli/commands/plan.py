"""`splitbus plan show|explain|pin|unpin`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from typing import Annotated

import typer

from splitbus_cli.options import AsJson, Target, takes_target

app = typer.Typer(no_args_is_help=True, help="Show which device runs which split and why, and pin one.")

Device = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


@app.command()
@takes_target
def show(
    target: Target,
    device: Annotated[str | None, typer.Argument(metavar="DEVICE", help="This device alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the plans of all devices, and what the devices make of them.

    Example: splitbus plan show
    """
    from splitbus_cli import plans

    plans.show(target, device, as_json=as_json)


@app.command()
@takes_target
def explain(
    target: Target,
    device: Device,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="This model alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a device's plan: what was measured, predicted and priced.

    Example: splitbus plan explain cam1
    """
    from splitbus_cli import plans

    plans.explain_plan(target, device, model, as_json=as_json)


@app.command()
@takes_target
def pin(
    target: Target,
    device: Device,
    model: Model,
    cut: Annotated[list[int] | None, typer.Option(metavar="I", help="Cut here; again for a second worker.")] = None,
    codec: Annotated[
        list[str] | None, typer.Option(metavar="C", help="Of each cut, or of all. (default: zstd)")
    ] = None,
    node: Annotated[list[str] | None, typer.Option(metavar="N", help="Worker behind each cut. (default: any)")] = None,
    local: Annotated[bool, typer.Option("--local", help="Everything on the device.")] = False,
) -> None:
    """Pin a split: the gateway keeps to it until it is unpinned.

    Example: splitbus plan pin cam1 person --cut 17 --codec q8 --node edge1
    """
    from splitbus_cli import plans

    plans.pin(target, device, model, plans.Wish(cut or (), codec or (), node or (), local))


@app.command()
@takes_target
def unpin(target: Target, device: Device, model: Model) -> None:
    """Let the gateway choose again.

    Example: splitbus plan unpin cam1 person
    """
    from splitbus_cli import plans

    plans.unpin(target, device, model)
