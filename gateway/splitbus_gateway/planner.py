"""The planner: the fastest of all ways to run a model over up to three tiers. Pure; numpy prices all ways at once.

With leg(a, b)[cut, codec] = elapsed_a[cut] + encode + link + decode + wait_b - elapsed_b[cut], a way's latency is the
sum of its legs plus the last node's whole-model time plus the answer's way back: each leg is one array, a pair of
legs one outer sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from splitbus_gateway.pricing import (
    MS_PER_BYTE_AT_1_MBIT,
    Priced,
    elapsed,
    measured_link,
    node_facts,
    one_way_ms,
    price,
    slowness,
)
from splitbus_gateway.problem import Cut, Flags, Floats, NodeFacts, Pinned, Problem, Split
from splitbus_schemas.errors import UnsatisfiableError

_EPSILON = 1e-9
MAX_ALTERNATES = 3


@dataclass(frozen=True)
class Choice:
    """The fastest way, and the fastest of another shape (other cuts, codecs or tiers), both priced by step."""

    best: Priced
    runner_up: Priced | None
    considered: int
    blocked: tuple[str, ...]
    in_time: bool = True
    """Whether the best meets the deadline."""
    pin: Pinned | None = None
    """The pin that was followed."""


@dataclass(frozen=True, order=True)
class _Found:
    """Ordered: ties go to fewer nodes, then to names, then to the earlier cut and codec."""

    ms: float
    hops: int
    split: Split
    shape: tuple[tuple[str, ...], tuple[Cut, ...]]


def plan(problem: Problem) -> Choice:
    """The fastest way to run the model; a pin narrows the choice, and the runner-up is then what would be taken free.

    Raises UnsatisfiableError when the device has no profile yet, or the pin cannot be followed.
    """
    node_facts(problem, problem.device.node)
    routes, blocked = _routes(problem)
    if problem.pin is not None:
        return _pinned(problem, problem.pin, routes, blocked)
    return _free(problem, routes, blocked)


def alternates(problem: Problem, chosen: Split) -> tuple[Priced, ...]:
    """Other ways for the same head (same first cut and codec), fastest first: for when a worker of `chosen` fails."""
    routes, _ = _routes(problem)
    found = []
    for nodes in routes:
        hops = len(nodes) - 1
        if not 1 <= hops <= len(chosen.cuts) or nodes == chosen.nodes:
            continue
        try:
            found.append(price(problem, Split(nodes, chosen.cuts[:hops])))
        except UnsatisfiableError:
            continue
    return tuple(sorted(found, key=lambda priced: (priced.ms, priced.split))[:MAX_ALTERNATES])


def _free(problem: Problem, routes: list[tuple[str, ...]], blocked: tuple[str, ...]) -> Choice:
    rows = _Rows(problem)
    found: list[_Found] = []
    considered = 0
    for nodes in routes:
        ways = _price_route(problem, rows, nodes)
        considered += int(np.isfinite(ways).sum())
        found += list(_fastest_two(problem, rows, nodes, ways))
    found.sort()
    best = found[0]
    second = next((way for way in found if way.shape != best.shape), None)
    return _choice(problem, best.split, second.split if second else None, considered, blocked)


def _pinned(problem: Problem, pin: Pinned, routes: list[tuple[str, ...]], blocked: tuple[str, ...]) -> Choice:
    wanted = [
        nodes for nodes in routes if len(nodes) == len(pin.cuts) + 1 and (not pin.workers or nodes[1:] == pin.workers)
    ]
    if not wanted:
        raise UnsatisfiableError(_why_no_route(problem, pin, blocked))
    ways = sorted((price(problem, Split(nodes, pin.cuts)) for nodes in wanted), key=lambda way: (way.ms, way.split))
    free = _free(problem, routes, blocked)
    rival = free.best if free.best.split != ways[0].split else free.runner_up
    return _choice(problem, ways[0].split, rival.split if rival else None, free.considered, blocked)


def _why_no_route(problem: Problem, pin: Pinned, blocked: tuple[str, ...]) -> str:
    if pin.workers and len(pin.workers) != len(pin.cuts):
        return f"the pin names {len(pin.cuts)} cuts and {len(pin.workers)} workers: name one worker for each cut"
    missing = [name for name in pin.workers if problem.facts(name) is None]
    if missing and not any(text.startswith(missing[0]) for text in blocked):
        return f"{missing[0]} is not there"
    return "; ".join(blocked) or f"no {len(pin.cuts)} workers are there in the order edge, cloud"


def _choice(problem: Problem, best: Split, second: Split | None, considered: int, blocked: tuple[str, ...]) -> Choice:
    priced = price(problem, best)
    deadline = problem.limits.deadline_ms
    return Choice(
        best=priced,
        runner_up=price(problem, second) if second else None,
        considered=considered,
        blocked=blocked,
        in_time=deadline is None or priced.ms <= deadline,
        pin=problem.pin,
    )


def _routes(problem: Problem) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Every order of nodes whose facts are known, the device alone first; and what keeps the others out."""
    device = problem.device.node
    blocked = list(problem.blocked)
    reachable = []
    for worker in sorted(problem.workers, key=lambda facts: facts.node):
        try:
            node_facts(problem, worker.node)
            measured_link(problem, device, worker.node)
        except UnsatisfiableError as reason:
            blocked.append(str(reason))
        else:
            reachable.append(worker)
    pairs = []
    for edge in (facts for facts in reachable if facts.tier == "edge"):
        for cloud in (facts for facts in reachable if facts.tier == "cloud"):
            try:
                measured_link(problem, edge.node, cloud.node)
            except UnsatisfiableError as reason:
                blocked.append(str(reason))
            else:
                pairs.append((device, edge.node, cloud.node))
    return [(device,), *((device, facts.node) for facts in reachable), *pairs], tuple(blocked)


class _Rows:
    """The codings that the limits allow, as flat rows in the order of cut, then codec."""

    def __init__(self, problem: Problem) -> None:
        codings, limits = problem.codings, problem.limits
        loss = np.where(codings.lossless, 0.0, 1.0 - codings.agreement)
        budget = 0.0 if limits.lossless_only else 1.0 - limits.min_agreement
        allowed = np.isfinite(codings.coded_bytes) & (loss <= budget + _EPSILON)
        if limits.lossless_only:
            allowed &= codings.lossless
        if limits.codecs is not None:
            allowed &= np.array([codec in limits.codecs for codec in codings.codecs], dtype=np.bool_)
        self.at, self.codec = np.nonzero(allowed)
        chosen = loss[self.at, self.codec]
        # Losses of two cuts add up: a frame that either of them turns is wrong.
        self.pairs: Flags = (self.at[:, None] < self.at) & (chosen[:, None] + chosen <= budget + _EPSILON)

    def cut(self, problem: Problem, row: int) -> Cut:
        return Cut(problem.codings.cuts[self.at[row]], problem.codings.codecs[self.codec[row]])


def _price_route(problem: Problem, rows: _Rows, nodes: tuple[str, ...]) -> Floats:
    """Latency of every way along `nodes`: 0, 1 or 2 dimensions of rows; inf where it is not allowed."""
    facts = [node_facts(problem, node) for node in nodes]
    whole = float(elapsed(facts[-1])[-1])
    if len(nodes) == 1:
        return np.array(whole)
    back = one_way_ms(measured_link(problem, nodes[0], nodes[-1]), problem.answer_bytes, down=True)
    legs = [_leg(problem, rows, sender, receiver) for sender, receiver in pairwise(facts)]
    if len(legs) == 1:
        return legs[0] + (whole + back)
    return np.where(rows.pairs, legs[0][:, None] + (legs[1] + (whole + back)), np.inf)


def _leg(problem: Problem, rows: _Rows, sender: NodeFacts, receiver: NodeFacts) -> Floats:
    codings, link = problem.codings, measured_link(problem, sender.node, receiver.node)
    cell = (rows.at, rows.codec)
    size = codings.coded_bytes[cell]
    times = (
        elapsed(sender)[rows.at]
        + codings.encode_ms[cell] * slowness(problem, sender)
        + size * (MS_PER_BYTE_AT_1_MBIT / (link.up_mbit or 1.0))
        + codings.decode_ms[cell] * slowness(problem, receiver)
        - elapsed(receiver)[rows.at]
        + (one_way_ms(link, 0) + receiver.wait_ms)
    )
    known = np.array([codec in sender.codecs and codec in receiver.codecs for codec in codings.codecs])
    fits = size <= min(sender.max_packet_bytes, receiver.max_packet_bytes)
    return np.where(known[rows.codec] & fits, times, np.inf)


def _fastest_two(problem: Problem, rows: _Rows, nodes: tuple[str, ...], ways: Floats) -> Iterator[_Found]:
    """Two suffice: within one route every way has a shape of its own."""
    tiers = tuple(facts.tier for node in nodes if (facts := problem.facts(node)))
    flat = np.array(ways).ravel()
    for _ in range(min(2, flat.size)):
        place = int(flat.argmin())
        if not np.isfinite(flat[place]):
            return
        cuts = tuple(rows.cut(problem, int(row)) for row in np.unravel_index(place, ways.shape))
        yield _Found(float(flat[place]), len(nodes), Split(nodes, cuts), (tiers, cuts))
        flat[place] = np.inf
