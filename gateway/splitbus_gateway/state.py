"""The world as seen on the bus: nodes, links, profiles, streams, pins. `World.apply` alone changes it; no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from splitbus_gateway.changes import BUSY, QUEUE, Level, follow
from splitbus_gateway.links import Links
from splitbus_gateway.profile_file import check_profile
from splitbus_gateway.speed import Speeds
from splitbus_runtime.keyring import Known
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.ids import model_key
from splitbus_schemas.limits import MAX_PACKET_BYTES

StreamKey: TypeAlias = tuple[str, str]
"""Device, and the model's key as it stands in topics."""

GAP_S: Final = 3.0
"""A node that speaks after such a silence is news: statistics come every second."""

MAX_QUEUED: Final = 1_000_000
"""Workers refuse long before."""

DROPPED: Final = "dropped"
"""The counter of frames whose places newer ones took."""

OFFER_WEIGHT: Final = 0.5
"""Of the newest report in how often frames come: a second holds few, one more or less is a tenth."""

_BYTES_WEIGHT: Final = 0.2

_DOUBT_MEMORY: Final = 59 / 60
"""Of a second ago: a minute's worth of frames says how often a scene leaves doubt,"""

_DOUBT_PRIOR: Final = 50
"""and the samples that the model was calibrated on count as so many."""


@dataclass(slots=True)
class NodeView:
    """What is known of a node; messages of an earlier boot stay here but are not believed."""

    node: str
    status: m.NodeStatus | None = None
    caps: m.NodeCaps | None = None
    slices: m.SliceState | None = None
    held: frozenset[str] = frozenset()
    """All slices that this boot had ready at any time: their bytes are there."""
    profiles: dict[str, m.NodeProfile] = field(default_factory=dict)
    busy: float = 0.0
    queued: float = 0.0
    stats: m.NodeStats | None = None
    busy_level: Level | None = None
    queue_level: Level | None = None
    """Of log(1 + jobs)."""
    heard_at: float = float("-inf")
    """When it last said anything; what was retained says so once, of a node not heard before."""

    @property
    def boot(self) -> str | None:
        return self.status.boot if self.status else None

    @property
    def is_ready(self) -> bool:
        return self.status is not None and self.status.state == "ready"

    @property
    def tier(self) -> str | None:
        return self.status.tier if self.status else None

    @property
    def current_slices(self) -> m.SliceState | None:
        """Its slices, if this boot reported them."""
        return self.slices if self.slices and self.slices.boot == self.boot else None

    @property
    def fails(self) -> bool:
        """Whether something that it was told to load or to time cannot be had there."""
        return bool(self.current_slices and self.current_slices.failed)

    def has_fresh_profile(self, model: str, cuts: tuple[int, ...], turn: int = 0) -> bool:
        """Whether this boot profiled the model in these blocks, in that round of requests or a later one."""
        profile = self.profiles.get(model_key(model))
        return (
            profile is not None
            and profile.boot == self.boot
            and tuple(profile.cuts) == cuts
            and profile.round >= turn
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Doubted:
    """Frames that came back, and those of them that were sent again; what is long ago counts less."""

    frames: float = 0.0
    again: float = 0.0

    def after(self, frames: int, again: int) -> Doubted:
        """With one more report."""
        return Doubted(frames + _DOUBT_MEMORY * self.frames, again + _DOUBT_MEMORY * self.again)

    def share(self, expected: float) -> float:
        """Of the frames that are sent again; as good as `expected` while few came."""
        return (self.again + _DOUBT_PRIOR * expected) / (self.frames + _DOUBT_PRIOR)


@dataclass(slots=True)
class StreamView:
    """What is known of a device that runs a model."""

    state: m.PlanState | None = None
    plan: m.Plan | None = None
    stats: m.StreamStats | None = None
    pin: m.Pin | None = None
    pin_session: int = 0
    """The connection on which the pin was heard last."""
    offered: float | None = None
    """Frames a second that came of late, those that were dropped too, smoothed; None while none did."""
    dropping: bool = False
    """Whether newer frames took the places of some in the last period."""
    measured: dict[tuple[int, str], float] = field(default_factory=dict)
    """Coded bytes at each (cut, codec) that has run, smoothed."""
    doubted: dict[tuple[int, str], Doubted] = field(default_factory=dict)
    """How often frames were sent again, at each (cut, codec) that has run and does so."""


class World:
    """Everything that the bus said and that was believed."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeView] = {}
        self.streams: dict[StreamKey, StreamView] = {}
        self.links = Links()
        self.speeds = Speeds()
        self.keys = Known()
        """Whose keys count, by our own list."""
        self.load_changes = 0
        """How often a node's load has stepped, a worker has spoken after a silence, or a device has begun or ceased
        to avoid one: what comes every second, but may be worth a plan at once."""

    def apply(
        self,
        kind: topics.Topic,
        fields: dict[str, str],
        payload: bytes,
        now: float,
        *,
        retained: bool = False,
        session: int = 0,
    ) -> None:
        """Take a message of a topic; an empty one means that it was removed. `session` counts connections.

        Raises DecodeError, and changes nothing, when it breaks the contract or cannot be true.
        """
        if kind.message is None or kind.name not in _TAKE:
            raise DecodeError(f"topic of kind {kind.name!r} tells the gateway nothing")
        if not payload:
            _REMOVE.get(kind.name, _ignore)(self, fields)
            return
        message = m.decode_message(kind.message, payload)
        _check_ends(kind, fields, message)
        _TAKE[kind.name](self, fields, message, _When(now, retained, session))
        view = self.nodes.get(fields["node"]) if kind.writers == ("node",) else None
        if view is not None and (not retained or view.heard_at == float("-inf")):
            self.load_changes += now - view.heard_at > GAP_S
            view.heard_at = now

    def note_plan(self, key: StreamKey, plan: m.Plan) -> None:
        """A plan that we publish, without waiting to hear it."""
        self.streams.setdefault(key, StreamView()).plan = plan

    def forget_pins(self, session: int) -> list[StreamKey]:
        """Drop the pins that were heard on earlier connections alone; whose these were."""
        lost = [key for key, view in sorted(self.streams.items()) if view.pin and view.pin_session < session]
        for key in lost:
            self.streams[key].pin = None
        return lost

    def workers(self) -> list[NodeView]:
        """Edge and cloud nodes that are ready, by name."""
        return [view for _, view in sorted(self.nodes.items()) if view.is_ready and view.tier in ("edge", "cloud")]

    @property
    def full(self) -> set[str]:
        """Nodes whose disk is full, by what they say themselves."""
        return {view.node for view in self.nodes.values() if view.current_slices and view.current_slices.full}


@dataclass(frozen=True, slots=True)
class _When:
    now: float
    retained: bool
    session: int


def _check_ends(kind: topics.Topic, fields: dict[str, str], message: Any) -> None:
    """What a message says about its sender, peer and model is what its topic says."""
    for name, said in (("node", "node"), ("peer", "peer"), ("node", "device")):
        value = getattr(message, said, None)
        if name in fields and value is not None and value != fields[name]:
            raise DecodeError(f"{kind.name} of {fields[name]} speaks for {value}")
    model = getattr(message, "model", None)
    if "model" in fields and model is not None and model_key(model) != fields["model"]:
        raise DecodeError(f"{kind.name} of model {fields['model']} speaks of {model_key(model)}")


def _view(world: World, fields: dict[str, str]) -> NodeView:
    return world.nodes.setdefault(fields["node"], NodeView(fields["node"]))


def _stream(world: World, fields: dict[str, str]) -> StreamView:
    return world.streams.setdefault((fields["node"], fields["model"]), StreamView())


def _take_status(world: World, fields: dict[str, str], status: m.NodeStatus, when: _When) -> None:
    view = _view(world, fields)
    # The will of an earlier session may come after the new one's birth.
    if status.state == "lost" and view.boot not in (None, status.boot):
        return
    if view.boot != status.boot:
        view.busy = view.queued = 0.0
    view.status = status
    world.speeds.tell(status.node, status.pace, when.now)


def _take_caps(world: World, fields: dict[str, str], caps: m.NodeCaps, _: _When) -> None:
    _view(world, fields).caps = caps


def _take_stats(world: World, fields: dict[str, str], stats: m.NodeStats, _: _When) -> None:
    if stats.queued > MAX_QUEUED:
        raise DecodeError(f"stats of {stats.node} say {stats.queued} queued jobs, that is not believed")
    view = _view(world, fields)
    goes_on = view.stats is not None and view.stats.boot == stats.boot
    before = (view.busy_level, view.queue_level) if goes_on else (None, None)
    view.busy_level = follow(before[0], stats.busy, BUSY)
    view.queue_level = follow(before[1], math.log1p(stats.queued), QUEUE)
    view.busy, view.queued = view.busy_level.mean, math.expm1(view.queue_level.mean)
    world.load_changes += goes_on and (view.busy_level.count == 1 or view.queue_level.count == 1)
    view.stats = stats


def _take_slices(world: World, fields: dict[str, str], slices: m.SliceState, _: _When) -> None:
    view = _view(world, fields)
    goes_on = view.slices is not None and view.slices.boot == slices.boot
    view.held = (view.held if goes_on else frozenset()).union(slices.ready)
    view.slices = slices


def _take_profile(world: World, fields: dict[str, str], profile: m.NodeProfile, _: _When) -> None:
    check_profile(profile)
    _view(world, fields).profiles[fields["model"]] = profile


def _take_link(world: World, _: dict[str, str], report: m.LinkReport, when: _When) -> None:
    world.links.report(report, when.now, retained=when.retained)


def _take_plan_state(world: World, fields: dict[str, str], state: m.PlanState, _: _When) -> None:
    _stream(world, fields).state = state


def _take_plan(world: World, fields: dict[str, str], plan: m.Plan, _: _When) -> None:
    _stream(world, fields).plan = plan


def _take_pin(world: World, fields: dict[str, str], pin: m.Pin, when: _When) -> None:
    view = _stream(world, fields)
    view.pin, view.pin_session = pin, when.session


def _take_stream(world: World, fields: dict[str, str], stats: m.StreamStats, _: _When) -> None:
    if any(size > MAX_PACKET_BYTES for size in stats.cut_bytes):
        raise DecodeError(f"stream of {stats.node} reports a cut of {max(stats.cut_bytes)} bytes, no packet holds that")
    view = _stream(world, fields)
    _note_offer(view, stats)
    world.load_changes += set(stats.avoided) != set(view.stats.avoided if view.stats else ())
    view.stats = stats
    if view.plan is None or (view.plan.plan, view.plan.epoch) != (stats.plan, stats.epoch) or not stats.frames:
        return
    for cut, size in zip(view.plan.cuts, stats.cut_bytes, strict=False):
        before = view.measured.get((cut.index, cut.codec), float(size))
        view.measured[cut.index, cut.codec] = before + _BYTES_WEIGHT * (size - before)
    if view.plan.head is not None and view.plan.head.again is not None:
        cell, remote = (view.plan.cuts[0].index, view.plan.cuts[0].codec), _remote(stats)
        view.doubted[cell] = view.doubted.get(cell, Doubted()).after(remote, min(stats.again, remote))


def _remote(stats: m.StreamStats) -> int:
    """Frames of the period that others answered."""
    return sum(count for route, count in stats.routes.items() if ">" in route)


def _note_offer(view: StreamView, stats: m.StreamStats) -> None:
    """How many frames came, answered or not, since the report before."""
    before = view.stats.counters if view.stats and view.stats.boot == stats.boot else stats.counters
    dropped = max(0, stats.counters.get(DROPPED, 0) - before.get(DROPPED, 0))
    view.dropping, came = dropped > 0, (stats.frames + dropped) / stats.period_s
    if came:
        view.offered = came if view.offered is None else view.offered + OFFER_WEIGHT * (came - view.offered)
    else:
        view.offered = None


def _ignore(_: World, __: dict[str, str]) -> None:
    """Nothing was built on it."""


def _remove_node(world: World, fields: dict[str, str]) -> None:
    world.nodes.pop(fields["node"], None)
    world.speeds.forget(fields["node"])


def _remove_profile(world: World, fields: dict[str, str]) -> None:
    if view := world.nodes.get(fields["node"]):
        view.profiles.pop(fields["model"], None)


def _remove_link(world: World, fields: dict[str, str]) -> None:
    world.links.forget(fields["node"], fields["peer"])


def _remove_from_stream(name: str) -> Callable[[World, dict[str, str]], None]:
    def remove(world: World, fields: dict[str, str]) -> None:
        if stream := world.streams.get((fields["node"], fields["model"])):
            setattr(stream, name, None)

    return remove


_TAKE: Final[dict[str, Callable[[World, dict[str, str], Any, _When], None]]] = {
    topics.STATUS.name: _take_status,
    topics.CAPS.name: _take_caps,
    topics.STATS.name: _take_stats,
    topics.SLICES.name: _take_slices,
    topics.PROFILE.name: _take_profile,
    topics.LINK.name: _take_link,
    topics.PLAN_STATE.name: _take_plan_state,
    topics.PLAN.name: _take_plan,
    topics.PIN.name: _take_pin,
    topics.STREAM.name: _take_stream,
}

_REMOVE: Final[dict[str, Callable[[World, dict[str, str]], None]]] = {
    topics.STATUS.name: _remove_node,
    topics.PROFILE.name: _remove_profile,
    topics.LINK.name: _remove_link,
    topics.PLAN_STATE.name: _remove_from_stream("state"),
    topics.PLAN.name: _remove_from_stream("plan"),
    topics.PIN.name: _remove_from_stream("pin"),
}

WATCHED: Final = tuple(kind for kind in topics.TOPICS if kind.name in _TAKE)
"""The topics that the gateway reads."""
