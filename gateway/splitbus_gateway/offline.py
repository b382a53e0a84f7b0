"""A site written down: nodes with their profiles and links as given become what the bus would have told. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from splitbus_gateway.facts import ModelFacts, build_problem
from splitbus_gateway.problem import Limits, Objective, Problem
from splitbus_gateway.profile_file import elapsed_at
from splitbus_gateway.state import World
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import check_id, model_key
from splitbus_schemas.limits import MAX_PACKET_BYTES

BOOT: Final = "given"

MIN_MBIT: Final = 1e-3
MAX_MBIT: Final = 1e6
MAX_RTT_MS: Final = 60_000.0


@dataclass(frozen=True)
class GivenNode:
    """A node and how long it takes for the model's blocks."""

    node: str
    tier: m.Tier
    profile: m.NodeProfile


@dataclass(frozen=True, slots=True)
class GivenLink:
    """A link from `sender` to `receiver`, one way up and one way down."""

    sender: str
    receiver: str
    up_mbit: float
    down_mbit: float
    rtt_ms: float

    def __str__(self) -> str:
        rates = f"{self.up_mbit:g}" if self.up_mbit == self.down_mbit else f"{self.up_mbit:g}/{self.down_mbit:g}"
        return f"{self.sender}:{self.receiver}={rates}mbit/{self.rtt_ms:g}ms"


@dataclass(frozen=True)
class Demands:
    """What a plan is to be best at, and what it has to keep to."""

    limits: Limits = field(default_factory=Limits)
    objective: Objective = field(default_factory=Objective)
    frames_per_s: float | None = None


def write_world(world: World, nodes: Iterable[GivenNode], links: Iterable[GivenLink], now: float = 0.0) -> World:
    """`world` with these nodes ready and these links measured with full confidence, over what it knew of them.

    Raises DecodeError for a figure that no gateway would believe.
    """
    for given in nodes:
        name = given.node
        status = m.NodeStatus(state="ready", node=name, boot=BOOT, tier=given.tier)
        tell(world, topics.STATUS, status, now, node=name)
        tell(world, topics.CAPS, _caps(given), now, node=name)
        profile = given.profile.model_copy(update={"node": name, "boot": BOOT})
        tell(world, topics.PROFILE, profile, now, node=name, model=model_key(profile.model))
    for link in links:
        world.links.forget(link.sender, link.receiver)
        world.links.forget(link.receiver, link.sender)
        report = m.LinkReport(
            node=link.sender,
            peer=link.receiver,
            rtt_ms=link.rtt_ms,
            up_mbit=link.up_mbit,
            down_mbit=link.down_mbit,
            samples=1,
            confidence=1.0,
        )
        tell(world, topics.LINK, report, now, node=link.sender, peer=link.receiver)
    return world


def tell(world: World, kind: topics.Topic, message: m.Message, now: float, **fields: str) -> None:
    """Tell the world a message as if it had come over the bus. Raises DecodeError when it is not believed."""
    world.apply(kind, fields, message.to_json(), now)


def _caps(given: GivenNode) -> m.NodeCaps:
    return m.NodeCaps(
        node=given.node,
        boot=BOOT,
        tier=given.tier,
        cores=1,
        memory_mb=0,
        codecs=sorted(CODECS),
        max_packet_bytes=MAX_PACKET_BYTES,
    )


def ask(world: World, model: ModelFacts, device: str, demands: Demands, now: float = 0.0) -> Problem:
    """What the planner is asked about a device of that world."""
    problem = build_problem(world, model, device, now, demands.limits, {})
    if demands.frames_per_s:
        problem = replace(problem, frames_per_s=demands.frames_per_s, every_ms=1e3 / demands.frames_per_s)
    return replace(problem, objective=demands.objective)


def device_of(nodes: Sequence[GivenNode]) -> str:
    """The one device among the nodes. Raises ConfigError when there is none, or more than one."""
    devices = [given.node for given in nodes if given.tier == "device"]
    if len(devices) != 1:
        found = f"there are {', '.join(devices)}" if devices else "there is none"
        raise ConfigError(f"a plan is for one device, {found}: name it as in --profile device=FILE")
    return devices[0]


def scaled(profile: m.NodeProfile, factor: float) -> m.NodeProfile:
    """The profile of a machine that is `factor` times slower, one frame at a time."""
    return profile.model_copy(
        update={
            "block_ms": [ms * factor for ms in profile.block_ms],
            "spread_ms": [ms * factor for ms in profile.spread_ms],
            "whole_ms": profile.whole_ms * factor,
            "local_ms": None if profile.local_ms is None else profile.local_ms * factor,
            "batches": [],
        }
    )


def reblocked(profile: m.NodeProfile, model: ModelFacts) -> m.NodeProfile:
    """The same profile in the model's own blocks. Raises ConfigError when a block goes past one of its cuts."""
    ends = model.block_ends
    elapsed = elapsed_at(profile, ends)
    if elapsed is None:
        raise ConfigError(
            f"the profile of {profile.node} has blocks that end at {', '.join(map(str, profile.cuts))}, "
            f"{model.name} is planned at {', '.join(map(str, ends))}: make one with splitbus profile"
        )
    blocks = np.diff(elapsed, prepend=0.0).tolist()
    return profile.model_copy(
        update={"cuts": list(ends), "block_ms": blocks, "spread_ms": [0.0] * len(ends), "batches": []}
    )


# What people type

_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"
_LINK: Final = re.compile(
    rf"(?P<sender>[^:=]+):(?P<receiver>[^:=]+)=(?P<up>{_NUMBER})(/(?P<down>{_NUMBER}))?"
    rf"(?P<unit>[kmg]bit)(/s)?/(?P<rtt>{_NUMBER})ms"
)
_MBIT: Final = {"kbit": 1e-3, "mbit": 1.0, "gbit": 1e3}


def parse_link(text: str) -> GivenLink:
    """`device:edge1=20mbit/45ms`, or `=20/50mbit/45ms` for 20 up and 50 down. Raises ConfigError."""
    found = _LINK.fullmatch(text.replace(" ", ""))
    if found is None:
        raise ConfigError(
            f"link {text!r} is not understood: write FROM:TO=20mbit/45ms, or FROM:TO=20/50mbit/45ms for up and down"
        )
    up, down, rtt = float(found["up"]), float(found["down"] or found["up"]), float(found["rtt"])
    scale = _MBIT[found["unit"]]
    link = GivenLink(found["sender"], found["receiver"], up * scale, down * scale, rtt)
    _check_link(link)
    return link


def _check_link(link: GivenLink) -> None:
    for end in (link.sender, link.receiver):
        check_id("node", end)
    if link.sender == link.receiver:
        raise ConfigError(f"link {link} leads nowhere: name two nodes")
    for rate in (link.up_mbit, link.down_mbit):
        if not MIN_MBIT <= rate <= MAX_MBIT:
            raise ConfigError(f"link {link} has a rate of {rate:g} Mbit/s: give {MIN_MBIT:g} to {MAX_MBIT:g}")
    if not 0 <= link.rtt_ms <= MAX_RTT_MS:
        raise ConfigError(f"link {link} has a round trip of {link.rtt_ms:g} ms: give 0 to {MAX_RTT_MS:g}")


def parse_node(text: str) -> tuple[str, m.Tier, str]:
    """Name, tier and where its profile is: `device=a.json`, `edge1=4x`, `box:cloud=b.json`. Raises ConfigError.

    The tier may be left out of a name that begins with it.
    """
    who, _, where = text.partition("=")
    name, _, tier = who.partition(":")
    wanted = tier or next((known for known in _TIERS if name.startswith(known)), "")
    if not name or not where or wanted not in _TIERS:
        raise ConfigError(
            f"profile {text!r} is not understood: write NAME=FILE, or NAME:TIER=FILE with tier {', '.join(_TIERS)}"
        )
    return check_id("node", name), _TIERS[wanted], where


_TIERS: Final[dict[str, m.Tier]] = {"device": "device", "edge": "edge", "cloud": "cloud"}
