"""From what was typed to what the planner is asked: reads profiles and models, measures them, listens to the bus."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, TypeVar

from splitbus_cli.board import filters
from splitbus_cli.connection import connected
from splitbus_cli.layers import layered
from splitbus_cli.options import Target
from splitbus_cli.plan_models import PlannedModel, find_model
from splitbus_cli.planning import Asked
from splitbus_gateway.config import GatewayConfig, load_config
from splitbus_gateway.daemon import stream_settings
from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.offline import (
    Demands,
    GivenLink,
    GivenNode,
    ask,
    device_of,
    parse_link,
    parse_node,
    reblocked,
    scaled,
    write_world,
)
from splitbus_gateway.problem import OBJECTIVES, Objective, Problem
from splitbus_gateway.profile_file import ProfileFile
from splitbus_gateway.state import WATCHED, World
from splitbus_gateway.stream import StreamSettings
from splitbus_runtime.bus import Delivery
from splitbus_runtime.keyring import read_keys
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.messages import KeyList, NodeProfile
from splitbus_schemas.topics import KEYS, parse_topic

_TIMES: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)x")

T = TypeVar("T")

_WEIGHTS: Final = tuple(term.name for term in fields(Objective))


@dataclass(frozen=True)
class Question:
    """All that a planning command works on; `world` is what the gateway would have heard, at time `now`."""

    world: World
    model: ModelFacts
    device: str
    problem: Problem
    settings: StreamSettings
    demands: Demands
    pinned_by: str | None = None
    """Who pinned the device's plan, which is left aside here; None when nobody did."""

    def __post_init__(self) -> None:
        if self.problem.device.elapsed_ms is None:
            raise ConfigError(f"{self.device} has no profile of {self.model.name}: give one with --profile")


def pose(target: Target, model: str, asked: Asked) -> Question:
    """The question. Raises ConfigError, ModelError, BusError naming what cannot be used."""
    config = layered(GatewayConfig, load_config, asked.config, {"state_dir": asked.state_dir, "site": target.site})
    planned = find_model(model, config, asked.samples)
    base = stream_settings(config.planner)
    demands = _demands(asked, base)
    given = [_node(text, planned) for text in asked.profile or ()]
    links = [parse_link(text) for text in asked.link or ()]
    now = time.monotonic()
    if asked.from_bus:
        world, device = _heard(replace(target, site=config.site), asked.from_bus, now), asked.from_bus
    else:
        world, device = World(), device_of(given)
    _check_ends(links, {device, *world.nodes, *(node.node for node in given)})
    write_world(world, given, links, now)
    problem = ask(world, planned.facts, device, demands, now)
    settings = replace(base, limits=demands.limits, objective=demands.objective)
    pinned_by = problem.pin.by if problem.pin else None
    return Question(world, planned.facts, device, replace(problem, pin=None), settings, demands, pinned_by)


def _node(text: str, planned: PlannedModel) -> GivenNode:
    name, tier, where = parse_node(text)
    return GivenNode(name, tier, reblocked(_profile(where, planned), planned.facts))


def _profile(where: str, planned: PlannedModel) -> NodeProfile:
    if found := _TIMES.fullmatch(where):
        factor = float(found[1])
        if not factor:
            raise ConfigError("a machine 0x as slow is none: give a factor above 0, 4x say")
        return scaled(planned.here(), factor)
    return ProfileFile.load(Path(where), model=planned.facts.model).profile


def _heard(target: Target, device: str, now: float) -> World:
    """What a site's broker retains. Raises ConfigError when the device is not there."""
    world = World()
    with connected(target) as bus:
        for delivery in bus.retained(filters(bus.site, (*WATCHED, KEYS))):
            _take(world, delivery, now)
        site = bus.site
    devices = sorted(name for name, view in world.nodes.items() if view.tier == "device")
    if device not in devices:
        known = f"known are {', '.join(devices)}" if devices else "there is none"
        raise ConfigError(f"device {device!r} is not at site {site}: {known}")
    return world


def _take(world: World, delivery: Delivery, now: float) -> None:
    with contextlib.suppress(DecodeError):  # the gateway tells of them
        kind, fields = parse_topic(delivery.topic)
        if kind is KEYS and delivery.payload:
            world.keys = read_keys(KeyList.from_json(delivery.payload))
            return
        world.apply(kind, fields, delivery.payload, now, retained=True)


def _check_ends(links: list[GivenLink], known: set[str]) -> None:
    for link in links:
        for end in (link.sender, link.receiver):
            if end not in known:
                raise ConfigError(
                    f"link {link} names {end}, which has no --profile: known are {', '.join(sorted(known))}"
                )


# What is wanted


def _demands(asked: Asked, settings: StreamSettings) -> Demands:
    base = settings.limits
    if unknown := [codec for codec in asked.codec or () if codec not in CODECS]:
        raise ConfigError(f"codec {unknown[0]!r} is not known: use some of {', '.join(CODECS)}")
    limits = replace(
        base,
        min_agreement=_either(asked.min_agreement, base.min_agreement),
        codecs=frozenset(asked.codec) if asked.codec else base.codecs,
        deadline_ms=_either(asked.deadline, base.deadline_ms),
        keep_on_device=max(asked.keep_blocks_on_device, asked.keep_input_on == "device", base.keep_on_device),
        keep_on_site=max(asked.keep_blocks_on_site, asked.keep_input_on == "site", base.keep_on_site),
        max_rebuilt=_either(asked.max_rebuilt, base.max_rebuilt),
        device_memory_mb=_either(asked.device_memory, base.device_memory_mb),
        max_mbit=_either(asked.max_mbit, base.max_mbit),
        max_mb_per_day=_either(asked.max_mb_per_day, base.max_mb_per_day),
        must_run=frozenset(asked.must_run or base.must_run),
        must_not_run=frozenset(asked.must_not_run or base.must_not_run),
    )
    over_time = limits.max_mbit is not None or limits.max_mb_per_day is not None
    if over_time and not (asked.fps or asked.from_bus):
        raise ConfigError("a limit on bytes over time needs to know how often frames come: give --fps")
    objective = parse_objective(asked.objective) if asked.objective else settings.objective
    return Demands(limits, objective, asked.fps)


def _either(said: T | None, base: T) -> T:
    return base if said is None else said


def parse_objective(text: str) -> Objective:
    """`latency`, `throughput`, `bytes`, `device`, or weights: `latency=1,kilobytes=0.2`. Raises ConfigError."""
    if text in OBJECTIVES:
        return OBJECTIVES[text]
    weights = dict.fromkeys(_WEIGHTS, 0.0)
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            weight = float(value)
        except ValueError:
            weight = -1.0
        if name not in _WEIGHTS or not 0 <= weight < float("inf"):
            raise ConfigError(
                f"objective {text!r} is not understood: use {', '.join(OBJECTIVES)}, or weights of "
                f"{', '.join(_WEIGHTS)} such as latency=1,kilobytes=0.2"
            )
        weights[name] = weight
    if not any(weights.values()):
        raise ConfigError(f"objective {text!r} weighs nothing: give a weight above 0")
    return Objective(**weights)
