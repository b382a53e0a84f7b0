"""`splitbus doctor`: visits a broker, listens to a site, and prints what that means."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import typer
from rich.console import Console
from rich.text import Text

from splitbus_cli.connection import DEFAULT_SITE, DEFAULT_URL, connected
from splitbus_cli.findings import LISTEN_SECONDS, Finding, Level, Seen, judge
from splitbus_cli.options import Target
from splitbus_cli.text import printable
from splitbus_runtime.bus import Delivery
from splitbus_runtime.settings import BrokerSettings
from splitbus_runtime.visit import nagle_ms, visit
from splitbus_schemas.errors import BusError
from splitbus_schemas.ids import check_id
from splitbus_schemas.limits import MAX_PACKET_BYTES
from splitbus_schemas.topics import ECHO, PLAN, ROOT, STATS

LARGE_BYTES: Final = 512 * 1024
"""As large as splitbus's own parts get."""

SYS_TOPICS: Final = (
    "$SYS/broker/version",
    "$SYS/broker/publish/messages/dropped",
    "$SYS/broker/connection/+/state",
)
USER: Final = "doctor"
NOBODY: Final = "splitbus-doctor"
"""A topic that nobody reads."""


def doctor(target: Target, *, as_json: bool) -> None:
    """Examine the broker and the site; exit with the worst finding's level. Raises BusError, ConfigError."""
    findings = list(judge(examine(target)))
    if as_json:
        print(json.dumps([asdict(finding) | {"level": finding.level.name.lower()} for finding in findings], indent=2))
    else:
        _print(findings)
    raise typer.Exit(max(finding.level for finding in findings))


def examine(target: Target) -> Seen:
    """Visit the broker, and listen to the site for a while. Raises BusError when the broker does not take us."""
    broker = BrokerSettings.of(**({"url": DEFAULT_URL} | target.broker_fields))
    site = check_id("site", target.site or DEFAULT_SITE)
    own = ECHO.at(site, node=broker.user or USER)
    with visit(broker) as guest:
        seen = Seen(guest.announced, user=broker.user, tls=broker.tls)
        seen.plan = guest.publish(PLAN.at(site, node=USER, model="0" * 16))
    with visit(broker) as guest:
        room = (seen.announced.max_packet_bytes or MAX_PACKET_BYTES) - 1024
        seen.large = guest.publish(own, bytes(min(LARGE_BYTES, room)))
    seen.anonymous = broker.user is None or _takes_anyone(broker)
    seen.nagle_ms = _nagle(broker, own)
    _listen(target, site, seen)
    return seen


def _takes_anyone(broker: BrokerSettings) -> bool:
    try:
        with visit(broker, anonymous=True):
            return True
    except BusError:
        return False


def _nagle(broker: BrokerSettings, own: str) -> float | None:
    try:
        return nagle_ms(broker, own, NOBODY)
    except BusError:
        return None


def _listen(target: Target, site: str, seen: Seen) -> None:
    with connected(target) as bus:
        for delivery in bus.retained([f"{ROOT}/{site}/#", *SYS_TOPICS]):
            if delivery.topic.startswith("$SYS/"):
                seen.system[delivery.topic.removeprefix("$SYS/broker/")] = delivery.payload.decode(errors="replace")
            else:
                seen.retained[delivery.topic] = delivery.payload
        end = time.monotonic() + LISTEN_SECONDS
        while time.monotonic() < end:
            time.sleep(0.05)
            while not bus.inbox.empty():
                _note_speaker(bus.inbox.get(), seen)


def _note_speaker(delivery: Delivery, seen: Seen) -> None:
    fields = STATS.match(delivery.topic)
    if fields is not None and not delivery.retain:
        seen.speaking.add(fields["node"])


_STYLES: Final = {Level.FINE: "green", Level.WARN: "yellow", Level.BAD: "red"}


def _print(findings: Sequence[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for finding in sorted(findings, key=lambda finding: -finding.level):
        line = Text(f"{finding.level.name.lower():4}", style=_STYLES[finding.level])
        line.append(printable(f"  {finding.what}: {finding.found}"), style="not bold default")
        console.print(line)
        if finding.remedy:
            console.print(Text(printable(f"      do: {finding.remedy}"), style="dim"))
