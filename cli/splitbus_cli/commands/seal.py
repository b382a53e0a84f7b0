"""`splitbus seal add|retire|revoke|policy|list`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from splitbus_cli.options import AsJson

app = typer.Typer(
    no_args_is_help=True,
    help="Whose keys count where activations are sealed, so that the broker's owner reads nothing.",
)

Node = Annotated[str, typer.Argument(metavar="ID", help="The id of the camera or worker.")]
StateDir = Annotated[Path, typer.Option(metavar="DIR", help="The gateway's, which keeps the list and signs it.")]

STATE = Path("/var/lib/splitbus")


@app.command()
def add(
    node: Node,
    worker: Annotated[bool, typer.Option("--worker", help="It is a worker, and opens the frames of cameras.")] = False,
    public: Annotated[
        str | None, typer.Option(metavar="KEY", help="Its public key, x25519:..., where it made its own.")
    ] = None,
    state_dir: StateDir = STATE,
    as_json: AsJson = False,
) -> None:
    """Make a node's key, list it, and print what to put on the node; a second key follows the first.

    Example: splitbus seal add edge1 --worker
    """
    from splitbus_cli.seals import add_key

    add_key(state_dir, node, "worker" if worker else "device", public=public, as_json=as_json)


@app.command()
def retire(node: Node, state_dir: StateDir = STATE) -> None:
    """Drop a node's older key, once the node has its new one.

    Example: splitbus seal retire edge1
    """
    from splitbus_cli.seals import retire_key

    retire_key(state_dir, node)


@app.command()
def revoke(node: Node, state_dir: StateDir = STATE) -> None:
    """Drop all keys of a node: nothing that it seals is opened, nothing is sealed for it.

    Example: splitbus seal revoke cam-front
    """
    from splitbus_cli.seals import revoke_keys

    revoke_keys(state_dir, node)


@app.command()
def policy(
    rule: Annotated[
        Literal["required", "mixed"],
        typer.Argument(
            help="required: workers run sealed frames only. mixed: those of unlisted cameras in clear, too."
        ),
    ],
    state_dir: StateDir = STATE,
) -> None:
    """Say whether frames have to be sealed.

    Example: splitbus seal policy required
    """
    from splitbus_cli.seals import set_policy

    set_policy(state_dir, required=rule == "required")


@app.command("list")
def list_(state_dir: StateDir = STATE, as_json: AsJson = False) -> None:
    """Show whose keys count.

    Example: splitbus seal list --json
    """
    from splitbus_cli.seals import list_keys

    list_keys(state_dir, as_json=as_json)
