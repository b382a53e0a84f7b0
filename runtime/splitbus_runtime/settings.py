"""Settings that every component shares: the broker, and how a TOML file becomes checked settings."""

from __future__ import annotations

import difflib
import os
import re
import ssl
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar, Union, get_args, get_origin
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from splitbus_runtime.secrets import SECRETS
from splitbus_schemas.errors import ConfigError

DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}

_URL_FORM = "write mqtt://host, mqtt://host:1883 or mqtts://host:8883"
_SHOWN_CHARS = 80
_USER_INFO = re.compile(r"[^/@'\"]+@")  # a URL may hold a password, and errors are logged


class Settings(BaseModel):
    """Base of all settings: frozen, and a key that does not exist is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


class BrokerSettings(Settings):
    """How to reach the MQTT broker."""

    url: str = Field(default="mqtt://localhost", description="`mqtt://host[:port]`, or `mqtts://host[:port]` for TLS.")
    username: str | None = Field(
        default=None, description="User name at the broker; a URL may carry it as well.", examples=["gateway"]
    )
    password: SecretStr | None = Field(
        default=None, description="The password itself; better kept in `password_file`.", examples=["..."]
    )
    password_file: Path | None = Field(
        default=None, description="File whose first line is the password.", examples=["/etc/splitbus/password"]
    )
    password_credential: str | None = Field(
        default=None,
        description="Name of the systemd credential (`LoadCredential=`) that holds the password.",
        examples=["mqtt-password"],
    )
    cafile: Path | None = Field(
        default=None,
        description="Certificates to trust (PEM); the system's when absent.",
        examples=["/etc/splitbus/ca.pem"],
    )
    certfile: Path | None = Field(
        default=None,
        description="Our own certificate (PEM), where the broker wants one.",
        examples=["/etc/splitbus/gateway.pem"],
    )
    keyfile: Path | None = Field(
        default=None, description="Private key of `certfile`.", examples=["/etc/splitbus/gateway.key"]
    )

    @classmethod
    def of(cls, url: str, **fields: Any) -> Self:
        """The broker at `url`, with further fields by name. Raises ConfigError."""
        return check_settings(cls, {"url": url} | {k: v for k, v in fields.items() if v is not None}, "broker")

    @field_validator("url")
    @classmethod
    def _url_is_a_broker(cls, url: str) -> str:
        parse_broker_url(url)
        return url

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        sources = [n for n in ("password", "password_file", "password_credential") if getattr(self, n) is not None]
        if self._parts.password is not None:
            sources.append("the URL")
        if len(sources) > 1:
            raise ValueError(f"the password is given twice, by {' and '.join(sources)}: keep one")
        if sources and self.user is None:
            raise ValueError("a password needs a user name: set username")
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile belong together: give both or neither")
        if not self.tls and (self.cafile or self.certfile):
            raise ValueError("certificates need TLS: begin the URL with mqtts://")
        return self

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def host(self) -> str:
        """Name or address of the broker."""
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        """1883 or 8883 unless the URL says otherwise."""
        return self._parts.port or DEFAULT_PORTS[self._parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self._parts.scheme == "mqtts"

    @property
    def user(self) -> str | None:
        """The user name, from `username` or the URL."""
        return self.username or (unquote(self._parts.username) if self._parts.username else None)

    @property
    def address(self) -> str:
        """The broker as it may be shown: without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._parts.scheme}://{host}:{self.port}"

    def read_password(self) -> str | None:
        """The password, read from where the settings say. Raises ConfigError for a file that is not there.

        From then on it is hidden in what this process shows.
        """
        return SECRETS.keep(self._password())

    def _password(self) -> str | None:
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is not None:
            return _first_line("broker.password_file", self.password_file)
        if self.password_credential is not None:
            folder = os.environ.get("CREDENTIALS_DIRECTORY")
            if folder is None:
                raise ConfigError(
                    f"broker.password_credential is {self.password_credential!r}, but systemd gave this program no "
                    "credentials: add LoadCredential= to its unit, or use password_file"
                )
            return _first_line("broker.password_credential", Path(folder) / self.password_credential)
        return unquote(self._parts.password) if self._parts.password is not None else None

    def ssl_context(self) -> ssl.SSLContext | None:
        """A context that checks the broker's certificate and shows ours; None without TLS. Raises ConfigError."""
        if not self.tls:
            return None
        context = _context(self.cafile)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certfile is not None and self.keyfile is not None:
            _readable("broker.certfile", self.certfile)
            _readable("broker.keyfile", self.keyfile)
            try:
                context.load_cert_chain(self.certfile, self.keyfile)
            except ssl.SSLError as error:
                raise ConfigError(
                    f"broker.certfile {self.certfile} and keyfile {self.keyfile} are no pair of certificate and key "
                    f"in PEM: {error.reason or error}"
                ) from None
        return context


def _context(cafile: Path | None) -> ssl.SSLContext:
    if cafile is not None:
        _readable("broker.cafile", cafile)
    try:
        return ssl.create_default_context(cafile=cafile)
    except ssl.SSLError as error:
        raise ConfigError(f"broker.cafile {cafile} holds no certificate in PEM: {error.reason or error}") from None


def _readable(key: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from None


def _first_line(key: str, path: Path) -> str:
    _readable(key, path)
    lines = path.read_text().splitlines()
    if not lines or not lines[0]:
        raise ConfigError(f"{key}: {path} is empty: write the password on its first line")
    return lines[0]


def parse_broker_url(url: str) -> SplitResult:
    """The parts of a broker's URL. Raises ValueError saying how to write one."""
    if "://" not in url:
        raise ValueError(f"the URL has no scheme: {_URL_FORM}")
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"the scheme {parts.scheme!r} is not known: {_URL_FORM}")
    if not parts.hostname:
        raise ValueError(f"the URL names no host: {_URL_FORM}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"the URL has something behind host and port: {_URL_FORM}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"the port is not a number from 1 to 65535: {_URL_FORM}")
    return parts


def load_settings(kind: type[S], path: Path) -> S:
    """The settings in a TOML file, whose relative paths are taken from the file's folder.

    Raises ConfigError naming file, key, value and what is allowed.
    """
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a TOML file: it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    return check_settings(kind, _anchored(kind, data, path.parent), str(path))


def check_settings(kind: type[S], data: Mapping[str, Any], what: str) -> S:
    """`data` as settings. Raises ConfigError; `what` names where they come from."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise ConfigError("; ".join(f"{what}: {_explain(kind, problem)}" for problem in problems[:3])) from None


def sections(kind: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The keys of `kind` that are tables of their own."""
    for key, field in kind.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None:
            yield key, inner


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
    return None


def _anchored(kind: type[BaseModel], data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    tables = dict(sections(kind))
    result: dict[str, Any] = {}
    for key, value in data.items():
        if key in tables and isinstance(value, dict):
            result[key] = _anchored(tables[key], value, folder)
        elif key in kind.model_fields and _is_path(kind.model_fields[key].annotation) and isinstance(value, str):
            result[key] = folder / Path(value).expanduser()
        else:
            result[key] = value
    return result


def _is_path(annotation: Any) -> bool:
    return annotation is Path or Path in get_args(annotation)


def _explain(kind: type[BaseModel], problem: Any) -> str:
    place: Sequence[str | int] = problem["loc"]
    key = ".".join(str(part) for part in place)
    if problem["type"] == "extra_forbidden":
        return _explain_unknown(kind, place, key)
    if problem["type"] == "missing":
        return f"{key} is missing and has no default"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not place or _model_at(kind, place) is not None:
        return f"{key}: {message}" if key else message
    return f"{key} = {_shown(problem['input'])}: {message}"


def _explain_unknown(kind: type[BaseModel], place: Sequence[str | int], key: str) -> str:
    table = _model_at(kind, place[:-1])
    known = list(table.model_fields) if table is not None else []
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"known here are {', '.join(known)}"
    return f"{key} is not a setting: {remedy}"


def _model_at(kind: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel] | None:
    table: type[BaseModel] | None = kind
    for part in place:
        table = dict(sections(table)).get(str(part)) if table is not None else None
    return table


def _shown(value: Any) -> str:
    text = _USER_INFO.sub("***@", repr(value))
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
