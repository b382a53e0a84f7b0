"""Options that many commands take: where the broker is, and who we are there."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final

import typer

Command = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The broker and the site as given; None where nothing was said."""

    broker: str | None = None
    site: str | None = None
    username: str | None = None
    password_file: Path | None = None
    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None

    @property
    def broker_fields(self) -> dict[str, Any]:
        """What was said of the broker, by the names of `BrokerSettings`."""
        given = {"url": self.broker} | {f.name: getattr(self, f.name) for f in fields(self)[2:]}
        return {name: value for name, value in given.items() if value is not None}


def _option(flag: str, text: str, metavar: str) -> Any:
    variable = f"SPLITBUS_{flag[2:].upper().replace('-', '_')}"
    return typer.Option(flag, help=text, metavar=metavar, envvar=variable, rich_help_panel="Broker")


_OPTIONS: Final[dict[str, Any]] = {
    "broker": Annotated[
        str | None, _option("--broker", "mqtt://host[:port], or mqtts:// for TLS (default: mqtt://localhost)", "URL")
    ],
    "site": Annotated[str | None, _option("--site", "Part of the topic tree (default: home)", "NAME")],
    "username": Annotated[str | None, _option("--username", "User name at the broker.", "NAME")],
    "password_file": Annotated[
        Path | None, _option("--password-file", "File whose first line is the password.", "FILE")
    ],
    "cafile": Annotated[Path | None, _option("--cafile", "Certificates to trust (PEM).", "FILE")],
    "certfile": Annotated[Path | None, _option("--certfile", "Our own certificate (PEM).", "FILE")],
    "keyfile": Annotated[Path | None, _option("--keyfile", "Its private key (PEM).", "FILE")],
}

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


def takes_target(command: Command) -> Command:
    """`command` with the broker's options in place of its parameter `target`."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "target"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(name, keyword, default=None, annotation=annotation) for name, annotation in _OPTIONS.items()
    ]
    parameters = [*(p.replace(kind=keyword) for p in own), *shared]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        target = Target(**{name: values.pop(name) for name in _OPTIONS})
        command(target=target, **values)

    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
