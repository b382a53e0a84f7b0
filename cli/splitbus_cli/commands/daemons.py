"""`splitbus gateway` and `splitbus worker`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from splitbus_cli.options import Target

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings, TOML.")]
StateDir = Annotated[Path | None, typer.Option("--state-dir", metavar="DIR", help="Where models and slices are kept.")]


def gateway(
    target: Target,
    config: ConfigFile = None,
    state_dir: StateDir = None,
    check_config: Annotated[bool, typer.Option("--check-config", help="Check the settings and stop.")] = False,
) -> None:
    """Run the gateway: keeps the models, measures, plans, and tells each device its plan.

    Example: splitbus gateway --config /etc/splitbus/gateway.toml
    """
    from splitbus_cli.layers import layered
    from splitbus_gateway.config import GatewayConfig, load_config

    over = {"site": target.site, "state_dir": state_dir, "broker": target.broker_fields}
    settings = layered(GatewayConfig, load_config, config, over)
    if check_config:
        settings.broker.read_password()
        settings.broker.ssl_context()
        print(f"{config or 'the settings'}: ok")
        return
    from splitbus_cli.service import run_gateway

    run_gateway(settings)


def worker(
    target: Target,
    tier: Annotated[Literal["edge", "cloud"] | None, typer.Option(help="Where it stands. (default: edge)")] = None,
    node: Annotated[str | None, typer.Option(metavar="ID", help="Its id. (default: host name and tier)")] = None,
    config: ConfigFile = None,
    memory_mb: Annotated[int | None, typer.Option(metavar="N", help="For warm slices. (default: 1024)")] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Frames that run at once. (default: 1)")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Threads for one frame.")] = None,
    slowdown: Annotated[float | None, typer.Option(metavar="X", help="Act so many times slower, for trials.")] = None,
    state_dir: StateDir = None,
    gateway_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="SPLITBUS_GATEWAY_KEY",
            help="The gateway's public key, or a file of it; what it did not sign is refused.",
        ),
    ] = None,
    seal_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="SPLITBUS_SEAL_KEY",
            help="Its own key, from `splitbus seal add`: opens sealed frames.",
        ),
    ] = None,
) -> None:
    """Run a worker, at the edge or in the cloud: it runs the slices that frames name.

    Example: splitbus worker --tier edge --node edge1 --broker mqtt://gateway.local
    """
    from splitbus_cli.layers import layered
    from splitbus_worker import service
    from splitbus_worker.settings import WorkerConfig, load_config

    over = {
        "site": target.site,
        "broker": target.broker_fields,
        "tier": tier,
        "node": node,
        "memory_mb": memory_mb,
        "concurrency": concurrency,
        "threads": threads,
        "slowdown": slowdown,
        "state_dir": state_dir,
        "gateway_key": gateway_key,
        "seal_key": seal_key,
    }
    raise typer.Exit(service.run(layered(WorkerConfig, load_config, config, over)))
