"""All ways to run the model at once: every route with its terms as arrays over the cuts, in blocks that caches hold.

A coding is a row; a way is a route and one row for each of its legs. With leg(a, b)[row] = elapsed_a + encode + link
+ decode + wait_b - elapsed_b, a way's latency is the sum of its legs plus the last node's whole-model time plus the
answer's way back; all other terms but the interval are sums over legs too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splitbus_gateway.pricing import elapsed, loss_of, measured_link, node_facts, one_way_ms, slowness, wire_ms
from splitbus_gateway.privacy import blocks, kept_before, missing_figures, must_not_run, rebuilt_at
from splitbus_gateway.problem import Cut, Flags, Floats, LinkFacts, NodeFacts, Problem, SecondLook, Split
from splitbus_schemas.errors import UnsatisfiableError

Ints: TypeAlias = NDArray[np.intp]

BLOCK: Final = 1 << 15
"""So many ways are priced at once: their arrays stay in the cache."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Codings, in the order of cut, then codec: position of the cut and of the codec, and what was measured of each."""

    at: Ints
    codec: Ints
    size: Floats
    encode_ms: Floats
    decode_ms: Floats
    loss: Floats
    shown: Floats
    """How many of the last blocks are given something that crosses the cut."""
    again: Floats
    """The share of frames sent again; size and times of doing so."""
    again_size: Floats
    again_encode_ms: Floats
    again_decode_ms: Floats

    @classmethod
    def of(cls, problem: Problem) -> Rows:
        """The codings that the limits allow."""
        codings, limits = problem.codings, problem.limits
        loss = loss_of(problem)
        allowed = np.isfinite(codings.coded_bytes) & np.isfinite(loss)
        if limits.lossless_only:
            allowed &= codings.lossless
        if limits.codecs is not None:
            allowed &= np.array([codec in limits.codecs for codec in codings.codecs], dtype=np.bool_)
        at, codec = cell = np.nonzero(allowed)
        shown = (blocks(problem) - kept_before(problem)[at]).astype(np.float64)
        times = codings.encode_ms[cell], codings.decode_ms[cell]
        return cls(at, codec, codings.coded_bytes[cell], *times, loss[cell], shown, *_again(codings.second, at, codec))

    def cut(self, problem: Problem, row: int) -> Cut:
        """The cut and codec of a row."""
        return Cut(problem.codings.cuts[self.at[row]], problem.codings.codecs[self.codec[row]])

    def __getitem__(self, chosen: Flags) -> Rows:
        return Rows(
            self.at[chosen],
            self.codec[chosen],
            self.size[chosen],
            self.encode_ms[chosen],
            self.decode_ms[chosen],
            self.loss[chosen],
            self.shown[chosen],
            self.again[chosen],
            self.again_size[chosen],
            self.again_encode_ms[chosen],
            self.again_decode_ms[chosen],
        )


def _again(second: SecondLook | None, at: Ints, codec: Ints) -> tuple[Floats, ...]:
    """Share, size and times; all 0 where nothing is sent again."""
    if second is None:
        return (np.zeros(at.size),) * 4
    share = second.share[at, codec]
    figures = (table[at, codec] for table in (second.coded_bytes, second.encode_ms, second.decode_ms))
    return share, *(np.where(share > 0, figure, 0.0) for figure in figures)


@dataclass(frozen=True, slots=True)
class Block:
    """Some ways along a route: these rows of each leg, and which of them go together."""

    parts: tuple[slice, ...]
    order: Flags | None = None
    """Of the block's first columns; the rows of all others go with any of the first leg's."""


@dataclass(frozen=True, eq=False)
class Term:
    """A figure of every way along a route: `const` plus, for each leg, what its row adds."""

    const: float
    legs: tuple[Floats, ...] = ()

    def __add__(self, other: Term) -> Term:
        return Term(self.const + other.const, tuple(a + b for a, b in zip(self.legs, other.legs, strict=True)))

    def times(self, factor: float) -> Term:
        """The figure, weighed."""
        return Term(factor * self.const, tuple(factor * leg for leg in self.legs))

    def over(self, block: Block) -> Floats:
        """The figure of each way of a block: as many dimensions as legs, one at least."""
        parts = [leg[part] for leg, part in zip(self.legs, block.parts, strict=True)]
        if not parts:
            return np.array([self.const])
        first = parts[0] + self.const
        return np.add.outer(first, parts[1]) if len(parts) == 2 else first

    def at(self, block: Block, places: Ints) -> Floats:
        """The figure of the ways at these places of a block's flat array."""
        parts = [leg[part] for leg, part in zip(self.legs, block.parts, strict=True)]
        if not parts:
            return np.full(places.shape, self.const)
        first = parts[0] + self.const
        return first[places // parts[1].size] + parts[1][places % parts[1].size] if len(parts) == 2 else first[places]


@dataclass(frozen=True, eq=False)
class Route:
    """Nodes in order, the rows that each leg allows, and the terms of all ways along it.

    The interval is the largest of `floors`, what depends on one leg's row alone, and of `middle`, what depends on both.
    """

    nodes: tuple[str, ...]
    tiers: tuple[str, ...]
    rows: tuple[Rows, ...]
    terms: Mapping[str, Term]
    floors: tuple[Floats, ...]
    middle: Term | None

    def blocks(self) -> Iterator[Block]:
        """All ways, in blocks."""
        if len(self.rows) < 2:
            yield Block((slice(None),) * len(self.rows))
            return
        one, two = (rows.at for rows in self.rows)
        begin = 0
        while begin < one.size:
            column = int(np.searchsorted(two, one[begin], side="right"))
            if column == two.size:
                return
            end = min(one.size, begin + max(1, BLOCK // (two.size - column)))
            mixed = int(np.searchsorted(two, one[end - 1], side="right"))
            order = one[begin:end, None] < two[column:mixed] if mixed > column else None
            yield Block((slice(begin, end), slice(column, None)), order)
            begin = end

    def weighed(self, weights: Mapping[str, float]) -> Term | None:
        """The terms' weighed sum; None when there is nothing to sum."""
        used = [self.terms[name].times(weight) for name, weight in weights.items() if weight and name != "interval"]
        return reduce(Term.__add__, used) if used else None

    def interval(self, block: Block) -> Floats:
        """The interval of each way of a block."""
        floors = [floor[part] for floor, part in zip(self.floors, block.parts, strict=True)]
        if self.middle is None:
            return floors[0]
        longest = self.middle.over(block)
        for leg, floor in enumerate(floors):
            np.maximum(longest, floor[:, None] if leg == 0 else floor, out=longest)
        return longest

    def narrowed(self, keep: Sequence[Flags]) -> Route:
        """The route with these rows of each leg only."""

        def pick(legs: tuple[Floats, ...]) -> tuple[Floats, ...]:
            return tuple(leg[flags] for leg, flags in zip(legs, keep, strict=True))

        def term(old: Term) -> Term:
            return Term(old.const, pick(old.legs))

        return Route(
            self.nodes,
            self.tiers,
            tuple(rows[flags] for rows, flags in zip(self.rows, keep, strict=True)),
            {name: term(old) for name, old in self.terms.items()},
            pick(self.floors),
            term(self.middle) if self.middle else None,
        )

    def split(self, problem: Problem, block: Block, place: int) -> Split:
        """The way at a place of a block's flat array."""
        shape = [rows.at[part].size for rows, part in zip(self.rows, block.parts, strict=True)]
        picked = np.unravel_index(place, shape) if shape else ()
        return Split(
            self.nodes,
            tuple(
                rows.cut(problem, int(index) + (part.start or 0))
                for rows, part, index in zip(self.rows, block.parts, picked, strict=True)
            ),
        )


def find_routes(problem: Problem) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Every order of nodes whose facts are known, the device alone first; and what keeps the others out."""
    device = problem.device.node
    blocked = [*problem.blocked, *missing_figures(problem)]
    reachable = []
    for worker in sorted(problem.workers, key=lambda facts: facts.node):
        try:
            _check_worker(problem, worker)
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


def _check_worker(problem: Problem, worker: NodeFacts) -> None:
    node_facts(problem, worker.node)
    if must_not_run(problem, worker):
        raise UnsatisfiableError(f"{worker.node} must not run")
    measured_link(problem, problem.device.node, worker.node)


def measure(problem: Problem, rows: Rows, nodes: tuple[str, ...]) -> Route:
    """The route along `nodes` with all rows that its nodes can carry, not narrowed by limits yet."""
    facts = [node_facts(problem, node) for node in nodes]
    hops = list(pairwise(facts))
    legs = tuple(rows[_carried(problem, rows, *hop, alone=len(hops) == 1)] for hop in hops)
    links = [measured_link(problem, a.node, b.node) for a, b in hops]
    floors, between = _stages(problem, facts, links, legs)
    terms = _sums(problem, facts, links, legs) | _positions(problem, facts, legs) | _slowest(legs, floors, between)
    return Route(nodes, tuple(node.tier for node in facts), legs, terms, floors, between)


def _carried(problem: Problem, rows: Rows, sender: NodeFacts, receiver: NodeFacts, *, alone: bool) -> Flags:
    """What both can code, and send in one packet; frames in doubt are sent again where one worker is `alone`."""
    known = np.array([c in sender.codecs and c in receiver.codecs for c in problem.codings.codecs], dtype=np.bool_)
    largest = np.maximum(rows.size, rows.again_size)
    fits = largest <= min(sender.max_packet_bytes, receiver.max_packet_bytes)
    carried: Flags = known[rows.codec] & fits & (alone | (rows.again == 0))
    return carried


def _sums(
    problem: Problem, facts: Sequence[NodeFacts], links: Sequence[LinkFacts], legs: tuple[Rows, ...]
) -> dict[str, Term]:
    whole = float(elapsed(facts[-1])[-1])
    if not legs:
        memory = 0.0 if problem.memory_mb is None else float(problem.memory_mb[-1])
        nothing = Term(0.0)
        time = dict.fromkeys(("latency", "longest", "device_ms"), Term(whole))
        return {**time, **dict.fromkeys(("kilobytes", "device_kb", "loss"), nothing), "device_mb": Term(memory)}
    head, answer_kb = legs[0], problem.answer_bytes / 1e3
    back = one_way_ms(measured_link(problem, facts[0].node, facts[-1].node), problem.answer_bytes, down=True)
    delays = tuple(_leg(problem, *case) for case in zip(links, legs, pairwise(facts), strict=True))
    second = _second_trip(problem, links[0], head, (facts[0], facts[1]), back)
    encode_ms = (head.encode_ms + head.again * head.again_encode_ms) * slowness(problem, facts[0])
    sent_kb, answers_kb = (head.size + head.again * head.again_size) / 1e3, head.again * answer_kb
    memory_mb = np.zeros(head.at.size) if problem.memory_mb is None else problem.memory_mb[head.at]
    return {
        "latency": Term(whole + back, (delays[0] + head.again * second, *delays[1:])),
        "longest": Term(whole + back, (delays[0] + (head.again > 0) * second, *delays[1:])),
        "kilobytes": Term(answer_kb, (sent_kb + answers_kb, *(rows.size / 1e3 for rows in legs[1:]))),
        "device_kb": _head(legs, sent_kb + answers_kb, answer_kb),
        "device_ms": _head(legs, elapsed(facts[0])[head.at] + encode_ms),
        "loss": Term(0.0, tuple(rows.loss for rows in legs)),
        "device_mb": _head(legs, memory_mb),
    }


def _head(legs: tuple[Rows, ...], values: Floats, const: float = 0.0) -> Term:
    """A term that the first leg's row alone decides."""
    return Term(const, (values, *(np.zeros(rows.at.size) for rows in legs[1:])))


def _leg(problem: Problem, link: LinkFacts, rows: Rows, ends: tuple[NodeFacts, NodeFacts]) -> Floats:
    sender, receiver = ends
    sent = _sent(problem, link, ends, rows.size, rows.encode_ms, rows.decode_ms)
    return elapsed(sender)[rows.at] + sent - elapsed(receiver)[rows.at]


def _second_trip(
    problem: Problem, link: LinkFacts, rows: Rows, ends: tuple[NodeFacts, NodeFacts], back: float
) -> Floats:
    """How much later the answer of one worker comes that is asked again: all but the device's own blocks once more."""
    whole = elapsed(ends[1])
    sent = _sent(problem, link, ends, rows.again_size, rows.again_encode_ms, rows.again_decode_ms)
    return sent + (float(whole[-1]) - whole[rows.at]) + back


def _sent(
    problem: Problem,
    link: LinkFacts,
    ends: tuple[NodeFacts, NodeFacts],
    size: Floats,
    encode_ms: Floats,
    decode_ms: Floats,
) -> Floats:
    """From the end of one node's blocks to the beginning of the next one's."""
    sender, receiver = ends
    return (
        encode_ms * slowness(problem, sender)
        + size * wire_ms(link, 1.0)
        + decode_ms * slowness(problem, receiver)
        + (one_way_ms(link, 0) + receiver.wait_ms)
    )


def _positions(problem: Problem, facts: Sequence[NodeFacts], legs: tuple[Rows, ...]) -> dict[str, Term]:
    """Blocks that each side runs, how many of the last are given something that left the device, or the site, and what
    can be rebuilt of that.
    """
    count = blocks(problem)
    before = 0 if problem.codings.cuts[0] == 0 else 1
    if not legs:
        nothing = Term(0.0)
        return {
            "device_blocks": Term(count + before),
            "worker_blocks": nothing,
            "off_device": nothing,
            "off_site": nothing,
            "rebuilt": nothing,
        }
    cloud = [rows.shown * (node.tier == "cloud") for rows, node in zip(legs, facts[1:], strict=True)]
    own = legs[0].at.astype(np.float64)
    return {
        "device_blocks": _head(legs, own, before),
        "worker_blocks": _head(legs, count - own),
        "off_device": _head(legs, legs[0].shown),
        "off_site": Term(0.0, tuple(cloud)),
        "rebuilt": _head(legs, rebuilt_at(problem)[legs[0].at]),
    }


def _stages(
    problem: Problem, facts: Sequence[NodeFacts], links: Sequence[LinkFacts], legs: tuple[Rows, ...]
) -> tuple[tuple[Floats, ...], Term | None]:
    """The interval's floors and middle: the first and last node, the links, and the node between."""
    if not legs:
        return (), Term(float(elapsed(facts[0])[-1]))
    head, whole = legs[0], elapsed(facts[-1])
    encode = [elapsed(a)[rows.at] + rows.encode_ms * slowness(problem, a) for a, rows in zip(facts, legs, strict=False)]
    encode[0] = encode[0] + head.again * head.again_encode_ms * slowness(problem, facts[0])
    decode = [
        rows.decode_ms * slowness(problem, b) - elapsed(b)[rows.at] for b, rows in zip(facts[1:], legs, strict=True)
    ]
    floors = [(rows.size + rows.again * rows.again_size) * wire_ms(link, 1.0)
              for rows, link in zip(legs, links, strict=True)]  # fmt: skip
    floors[0] = np.maximum(floors[0], encode[0])
    last = decode[-1] + float(whole[-1])
    if len(legs) == 1:
        once_more = head.again_decode_ms * slowness(problem, facts[1]) + float(whole[-1]) - whole[head.at]
        last = last + head.again * once_more
    floors[-1] = np.maximum(floors[-1], last / facts[-1].lanes)
    answer = wire_ms(measured_link(problem, facts[0].node, facts[-1].node), problem.answer_bytes, down=True)
    floors[0] = np.maximum(floors[0], (1 + head.again) * answer)
    middle = Term(0.0, (decode[0], encode[1])).times(1 / facts[1].lanes) if len(legs) == 2 else None
    return tuple(floors), middle


def _slowest(legs: tuple[Rows, ...], floors: tuple[Floats, ...], between: Term | None) -> dict[str, Term]:
    """The interval is the largest of these three, and each is a sum over legs."""
    nothing = Term(0.0, tuple(np.zeros(rows.at.size) for rows in legs))
    if len(legs) < 2:
        only = Term(0.0, floors) if legs else between or nothing
        return {"first_stages": only, "middle_stage": nothing, "last_stages": nothing}
    (first, last), (none, nil) = floors, nothing.legs
    return {
        "first_stages": Term(0.0, (first, nil)),
        "middle_stage": between or nothing,
        "last_stages": Term(0.0, (none, last)),
    }
