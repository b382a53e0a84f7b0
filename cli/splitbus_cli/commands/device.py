"""`splitbus device enroll|revoke|list`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitbus_cli.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Give devices credentials and rights at the broker, and take them back.")

Device = Annotated[str, typer.Argument(metavar="ID", help="The device's id, which becomes its user name.")]
Folder = Annotated[Path, typer.Option(metavar="DIR", help="Where splitbus.passwd and splitbus.acl of Mosquitto are.")]
PidFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Mosquitto's pid_file: it is told to read its files again.")
]

MOSQUITTO = Path("/etc/mosquitto")


@app.command()
def enroll(
    device: Device,
    folder: Folder = MOSQUITTO,
    certs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Make a certificate with the authority there, not a password.")
    ] = None,
    broker: Annotated[str, typer.Option(metavar="URL", help="How the device reaches the broker.")] = "mqtts://BROKER",
    site: Annotated[str, typer.Option(metavar="NAME", help="The site that it belongs to.")] = "home",
    state_dir: Annotated[Path, typer.Option(metavar="DIR", help="The gateway's, whose public key is printed.")] = Path(
        "/var/lib/splitbus"
    ),
    seal: Annotated[
        bool, typer.Option("--seal", help="Its frames are sealed: make its key too, in the list in --state-dir.")
    ] = False,
    pid_file: PidFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a device's credentials and rights, and print what to put on it.

    Example: splitbus device enroll cam-front --broker mqtts://gateway.home:8884
    """
    from splitbus_cli.devices import BrokerFolder, enroll_device

    files = BrokerFolder(folder, pid_file)
    enroll_device(files, device, certs=certs, url=broker, state_dir=state_dir, site=site, seal=seal, as_json=as_json)


@app.command()
def revoke(
    device: Device,
    folder: Folder = MOSQUITTO,
    state_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="The gateway's, in whose list its seal keys are.")
    ] = Path("/var/lib/splitbus"),
    pid_file: PidFile = None,
) -> None:
    """Take a device's credentials, rights and seal keys; a certificate is worth nothing from then on.

    Example: splitbus device revoke cam-front
    """
    from splitbus_cli.devices import BrokerFolder, revoke_device

    revoke_device(BrokerFolder(folder, pid_file), device, state_dir=state_dir)


@app.command("list")
def list_(folder: Folder = MOSQUITTO, as_json: AsJson = False) -> None:
    """Show enrolled and revoked devices.

    Example: splitbus device list --json
    """
    from splitbus_cli.devices import BrokerFolder, list_devices

    list_devices(BrokerFolder(folder), as_json=as_json)
