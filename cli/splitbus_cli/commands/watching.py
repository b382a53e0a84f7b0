"""`splitbus top` and `splitbus tap`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from typing import Annotated

import typer

from splitbus_cli.options import AsJson, Target


def top(
    target: Target,
    once: Annotated[bool, typer.Option("--once", help="Print once and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a site: nodes, links, plans, frame rates, alerts.

    Example: splitbus top --broker mqtt://gateway.local
    """
    from splitbus_cli import top

    top.top(target, once=once, as_json=as_json)


def tap(
    target: Target,
    topic_filter: Annotated[
        str | None, typer.Argument(metavar="FILTER", help="MQTT topic filter. (default: the site)")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many lines.")] = None,
    parts: Annotated[bool, typer.Option("--parts", help="A line for each part of a packet in parts, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow messages as they pass, binary packets decoded.

    Example: splitbus tap 'splitbus/v1/home/job/#'
    """
    from splitbus_cli import tap

    tap.tap(target, topic_filter, count=count, parts=parts, as_json=as_json)
