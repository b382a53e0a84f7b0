"""`splitbus plan MODEL`, and `splitbus plan show|explain|pin|unpin|map|replay`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from splitbus_cli.options import AsJson, Target, takes_target
from splitbus_cli.planning import Asked, takes_question
from splitbus_cli.planning import Model as AnyModel

OFFLINE: Final = "offline"
"""The command that stands for none: `splitbus plan MODEL`."""


class PlanCommands(TyperGroup):
    """What is no command's name is a model: `splitbus plan MODEL ...` is `splitbus plan offline MODEL ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [OFFLINE, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return "MODEL" if name == OFFLINE else name, command, rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return ["MODEL [OPTIONS]... | COMMAND [ARGS]..."]


class OfflineCommand(TyperCommand):
    """Its usage is `splitbus plan MODEL [OPTIONS]`: its name stands there as MODEL already."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return ["[OPTIONS]"]


app = typer.Typer(
    cls=PlanCommands,
    no_args_is_help=True,
    help="Plan a model from files or from the bus: splitbus plan MODEL. Or show which device runs which split and "
    "why, and pin one: the commands below.\n\n"
    "splitbus plan MODEL --help has all options, of map and replay as well.",
    epilog="Example: splitbus plan person.onnx --profile device=camera.json --profile edge1=box.json "
    "--link device:edge1=20mbit/45ms",
)

Device = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
Picture = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write a picture, PNG or SVG.")]


@app.command(OFFLINE, cls=OfflineCommand, hidden=True)
@takes_target
@takes_question
def offline(
    target: Target,
    asked: Asked,
    model: AnyModel,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="List all plans that are best in something, in place of one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Choose the best plan for a device, from files or from the bus; nothing is changed anywhere.

    Example: splitbus plan person.onnx --profile device=camera.json --profile edge1=box.json
    --link device:edge1=20/50mbit/45ms --keep-input-on device --deadline 100
    """
    from splitbus_cli import plan_offline

    plan_offline.show(target, model, asked, pareto=pareto, as_json=as_json)


@app.command("map")
@takes_target
@takes_question
def chart(
    target: Target,
    asked: Asked,
    model: AnyModel,
    out: Picture = None,
    rates: Annotated[str, typer.Option("--rates", metavar="LOW:HIGH", help="Mbit/s from the device.")] = "0.5:200",
    rtts: Annotated[str, typer.Option("--rtts", metavar="LOW:HIGH", help="Round trips in ms.")] = "1:300",
    to: Annotated[
        str | None, typer.Option("--to", metavar="NODE", help="The link that the axes mean. (default: the fastest)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Map which plan wins over rate and round trip of the device's links, today's place marked.

    Example: splitbus plan map person --from-bus camera1 --out map.png
    """
    from splitbus_cli import plan_map

    plan_map.show(target, model, asked, plan_map.Frame(rates, rtts, to), out=out, as_json=as_json)


@app.command()
@takes_target
@takes_question
def replay(
    target: Target,
    asked: Asked,
    trace: Annotated[
        Path, typer.Argument(metavar="TRACE", help="CSV: seconds, up Mbit/s, down Mbit/s, round trip ms.")
    ],
    model: AnyModel,
    out: Picture = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="NODE", help="The link that was traced. (default: the fastest)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a link's trace through the planner and its rivals, against what hindsight would have run.

    Example: splitbus plan replay drive.csv person.onnx --profile device=4x --profile edge1=1x
    --link device:edge1=20mbit/45ms
    """
    from splitbus_cli import plan_replay

    plan_replay.show(target, trace, model, asked, to=to, out=out, as_json=as_json)


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
