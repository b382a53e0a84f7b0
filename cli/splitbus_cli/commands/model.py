"""`splitbus model add|list|remove`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitbus_cli.commands.daemons import ConfigFile
from splitbus_cli.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Register, list and remove the models that a gateway serves.")

StateDir = Annotated[
    Path | None, typer.Option("--state-dir", metavar="DIR", envvar="SPLITBUS_STATE_DIR", help="The gateway's folder.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name that devices may use.")]


@app.command()
def add(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The ONNX model.")],
    samples: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="Real inputs, .npz or .npy, or a folder of them, to measure on."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let the name stand for this model from now on.")] = False,
    config: ConfigFile = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Register a model: copy it, find its cuts, measure what crosses them.

    Example: splitbus model add person person.onnx --samples frames.npz
    """
    from splitbus_cli import models

    registry = models.open_registry(config, state_dir)
    models.add(registry, name, file, samples, replace=replace, as_json=as_json)


@app.command("list")
def show(config: ConfigFile = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List the registered models.

    Example: splitbus model list --state-dir /var/lib/splitbus
    """
    from splitbus_cli import models

    models.show(models.open_registry(config, state_dir), as_json=as_json)


@app.command()
def remove(name: Name, config: ConfigFile = None, state_dir: StateDir = None) -> None:
    """Forget a model; devices that run it go on alone.

    Example: splitbus model remove person
    """
    from splitbus_cli import models

    models.remove(models.open_registry(config, state_dir), name)
