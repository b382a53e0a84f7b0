"""`splitbus plan`: shows plans and why they are so, and pins them, by retained messages alone."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Console

from splitbus_cli import explain
from splitbus_cli.board import Board, StreamKey, filters
from splitbus_cli.connection import Connection, connected
from splitbus_cli.options import Target
from splitbus_cli.rows import Row, stream_rows
from splitbus_cli.tables import add_row, new_table, state_text
from splitbus_cli.text import milliseconds, printable
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import check_id, model_key
from splitbus_schemas.messages import ModelCard, Pin, PlanCut
from splitbus_schemas.topics import DECISION, MODEL, PIN, PLAN, PLAN_STATE, STATUS, STREAM

_KINDS = (STATUS, MODEL, PLAN, PLAN_STATE, STREAM, DECISION, PIN)


@contextmanager
def _site(target: Target) -> Iterator[tuple[Connection, Board]]:
    """A connection, and what the site's broker retains of plans."""
    board = Board()
    with connected(target) as bus:
        for delivery in bus.retained(filters(bus.site, _KINDS)):
            board.apply(delivery)
        yield bus, board


def show(target: Target, device: str | None, *, as_json: bool) -> None:
    """Print the plans of all devices, or of one. Raises ConfigError when that one is unknown."""
    with _site(target) as (bus, board):
        rows = [row for row in stream_rows(board) if device in (None, row["device"])]
        if device is not None and not rows:
            raise ConfigError(_no_plans(board, device, bus.site))
        if as_json:
            print(json.dumps(rows, indent=2))
        elif rows:
            _print_plans(rows)
        else:
            print(f"No device of site {bus.site} has a plan yet: a camera gets one soon after its first frames.")


def _print_plans(rows: list[Row]) -> None:
    table = new_table(None, "device", "model", "plan", "state", "cuts", "route", "predicted", "p50")
    for row in rows:
        add_row(
            table,
            row["device"],
            row["model"],
            f"{row['plan'] or '-'}{' pinned' * bool(row['pinned'])}",
            state_text(row["state"], row["state_reason"]),
            row["cuts"] or "-",
            row["route"] or "-",
            milliseconds(row["predicted_ms"]),
            milliseconds(row.get("p50_ms")),
        )
    Console().print(table)
    for row in rows:
        if row["reason"]:
            print(printable(f"{row['device']} {row['model']}: {row['reason']}"))


def explain_plan(target: Target, device: str, model: str | None, *, as_json: bool) -> None:
    """Print why a device's plans are what they are. Raises ConfigError when there is no decision."""
    with _site(target) as (bus, board):
        key = model_key(board.find_model(model, bus.site).model) if model else None
        found = [k for k in sorted(board.decisions) if k[0] == device and key in (None, k[1])]
        if not found:
            raise ConfigError(_no_decision(board, device, model, bus.site))
        if as_json:
            print(json.dumps([explain.facts(board, k, board.decisions[k]) for k in found], indent=2))
        else:
            texts = [explain.text(board, k, board.decisions[k]) for k in found]
            print("\n\n".join("\n".join(printable(line) for line in text.splitlines()) for text in texts))


def _no_plans(board: Board, device: str, site: str) -> str:
    known = sorted({name for name, _ in board.stream_keys()})
    others = f"known are {', '.join(known)}" if known else "there is none at this site yet"
    return f"device {device!r} of site {site} has no plan: {others}"


def _no_decision(board: Board, device: str, model: str | None, site: str) -> str:
    known = sorted({f"{name} {board.model_name(key)}" for name, key in board.decisions})
    others = f"it has decided on {', '.join(known)}" if known else "it has made none at this site"
    return f"the gateway of site {site} has made no decision on {device}{f' {model}' if model else ''} yet: {others}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return ""


@dataclass(frozen=True)
class Wish:
    """A pin as typed."""

    cuts: Sequence[int]
    codecs: Sequence[str]
    nodes: Sequence[str]
    local: bool


def pin(target: Target, device: str, model: str, wish: Wish) -> None:
    """Pin a plan. Raises ConfigError for a pin that no gateway would take, BusError when the broker refuses it."""
    check_id("device", device)
    with _site(target) as (bus, board):
        card = board.find_model(model, bus.site)
        wanted = make_pin(wish, card, _user())
        bus.retain(_topic(bus, device, card), wanted.to_json())
        print(f"pinned {device} {card.name}: {_pin_text(wanted)}")
        if device not in board.status:
            print(f"{device} has not been seen at site {bus.site}: the pin waits for it")


def make_pin(wish: Wish, card: ModelCard, by: str) -> Pin:
    """The message for a wish. Raises ConfigError naming what does not fit."""
    if wish.local == bool(wish.cuts):
        raise ConfigError("a pin says either --local or where to cut, e.g. --cut 17 --codec q8")
    if wish.local and (wish.codecs or wish.nodes):
        raise ConfigError("--local runs the whole model on the device: leave --codec and --node out")
    codecs = _codecs(wish)
    if unknown := [codec for codec in codecs if codec not in CODECS]:
        raise ConfigError(f"codec {unknown[0]!r} is not known: use one of {', '.join(CODECS)}")
    if odd := [cut for cut in wish.cuts if cut not in card.cuts]:
        raise ConfigError(f"model {card.name} has no useful cut {odd[0]}: it has {', '.join(map(str, card.cuts))}")
    if any(later <= earlier for earlier, later in pairwise(wish.cuts)):
        raise ConfigError(f"cuts {', '.join(map(str, wish.cuts))} are not in the order of the model, first to last")
    if wish.nodes and len(wish.nodes) != len(wish.cuts):
        raise ConfigError(f"each cut needs a worker: {len(wish.cuts)} --cut, but {len(wish.nodes)} --node")
    for node in wish.nodes:
        check_id("node", node)
    cuts = [PlanCut(index=cut, codec=codec) for cut, codec in zip(wish.cuts, codecs, strict=True)]
    return Pin(cuts=cuts, nodes=list(wish.nodes), by=by)


def _codecs(wish: Wish) -> list[str]:
    """One codec for each cut; one given stands for all, none for zstd."""
    if len(wish.codecs) == len(wish.cuts):
        return list(wish.codecs)
    if len(wish.codecs) > 1:
        raise ConfigError(f"each cut needs a codec: {len(wish.cuts)} --cut, but {len(wish.codecs)} --codec")
    return list(wish.codecs or ("zstd",)) * len(wish.cuts)


def _pin_text(wanted: Pin) -> str:
    if not wanted.cuts:
        return "everything on the device"
    nodes = f" on {', '.join(wanted.nodes)}" if wanted.nodes else ""
    return ", ".join(f"cut {cut.index}/{cut.codec}" for cut in wanted.cuts) + nodes


def unpin(target: Target, device: str, model: str) -> None:
    """Remove a pin; where none is retained, the empty message is sent all the same, and that is said.

    Raises ConfigError when neither a pin nor a registered model has that name.
    """
    check_id("device", device)
    with _site(target) as (bus, board):
        pinned = _pinned_key(board, device, model)
        key = pinned or (device, model_key(board.find_model(model, bus.site).model))
        bus.retain(PIN.at(bus.site, node=device, model=key[1]), b"")
        print(f"unpinned {device} {board.model_name(key[1])}")
        if pinned is None:
            pins = ", ".join(f"{name} {board.model_name(key)}" for name, key in sorted(board.pins)) or "none"
            print(f"it was not pinned at site {bus.site}: pins are {pins}")


def _pinned_key(board: Board, device: str, model: str) -> StreamKey | None:
    """The pin meant, if there is one; also of a model that is no longer registered, by its key."""
    return next(
        (key for key in board.pins if key[0] == device and model in (key[1], board.model_name(key[1]))),
        None,
    )


def _topic(bus: Connection, device: str, card: ModelCard) -> str:
    return PIN.at(bus.site, node=device, model=model_key(card.model))
