"""The command line put together: global options, all commands, and how errors end it."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from splitbus_cli import logs
from splitbus_cli.commands import (
    certs,
    codec,
    daemons,
    demo,
    device,
    doctor,
    graphs,
    model,
    plan,
    profile,
    seal,
    watching,
)
from splitbus_cli.main import missing
from splitbus_cli.options import takes_target
from splitbus_runtime.secrets import redacted
from splitbus_schemas.errors import SplitbusError

DAEMONS = ("gateway", "worker")
INTERRUPTED = 130


class Commands(TyperGroup):
    """Ends a command's error with one line on stderr; with --debug, with its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SplitbusError as error:
            problem = str(error)
            if ctx.params["debug"]:
                raise
        except ModuleNotFoundError as error:
            problem = missing(error)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        typer.echo(f"splitbus: {redacted(problem)}", err=True)
        raise typer.Exit(1)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Share one ONNX model between cameras, edge and cloud workers over MQTT.",
    epilog="Begin with: splitbus demo",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"splitbus {importlib.metadata.version('splitbus')}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback has done all
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(envvar="SPLITBUS_LOG_LEVEL", help="Least level logged. (default: info for daemons, else error)"),
    ] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", envvar="SPLITBUS_LOG_JSON", help="Log lines as JSON, an object a line.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001 - read by Commands
) -> None:
    logs.configure(log_level or ("info" if ctx.invoked_subcommand in DAEMONS else "error"), as_json=log_json)


app.command()(takes_target(daemons.gateway))
app.command()(takes_target(daemons.worker))
app.add_typer(model.app, name="model")
app.add_typer(codec.app, name="codec")
app.add_typer(plan.app, name="plan")
app.command()(takes_target(watching.top))
app.command()(takes_target(watching.tap))
app.command()(takes_target(doctor.doctor))
app.command()(graphs.cuts)
app.command()(graphs.verify)
app.command()(profile.profile)
app.add_typer(certs.app, name="certs")
app.add_typer(device.app, name="device")
app.add_typer(seal.app, name="seal")
app.command()(demo.demo)
