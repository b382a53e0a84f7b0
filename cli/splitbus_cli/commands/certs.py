"""`splitbus certs authority|server|client`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Make certificates for the broker and for each node.")

Folder = Annotated[Path, typer.Option(metavar="DIR", help="Where ca.crt and ca.key are, and new files go.")]


@app.command("ca", hidden=True)
@app.command()
def authority(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name in the certificate.")] = "splitbus",
    folder: Folder = Path("certs"),
) -> None:
    """Make the authority that vouches for all others, once for a site.

    Example: splitbus certs authority --folder certs home
    """
    from splitbus_cli import certs

    certs.make_authority(folder, name)


@app.command()
def server(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The broker's host names and addresses.")],
    folder: Folder = Path("certs"),
) -> None:
    """Make the broker's certificate.

    Example: splitbus certs server gateway.local 192.168.1.10
    """
    from splitbus_cli import certs

    certs.make_server(folder, names)


@app.command()
def client(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node's id, which becomes its user name.")],
    folder: Folder = Path("certs"),
) -> None:
    """Make a node's certificate: a device, a worker, or the gateway.

    Example: splitbus certs client cam1
    """
    from splitbus_cli import certs

    certs.make_client(folder, node)
