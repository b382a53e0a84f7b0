"""The price of one way to run the model, step by step, and its terms: what `planner` minimises, for one candidate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from splitbus_gateway.privacy import breach
from splitbus_gateway.problem import (
    Codings,
    Cut,
    Floats,
    LinkFacts,
    NodeFacts,
    Objective,
    Problem,
    SecondLook,
    Split,
)
from splitbus_schemas.errors import UnsatisfiableError
from splitbus_schemas.messages import Step

MS_PER_BYTE_AT_1_MBIT: Final = 8e-3

DOUBT: Final = "frames in doubt"
"""Where the time goes that sending some frames again adds to the mean."""


@dataclass(frozen=True)
class SecondTrip:
    """Sending a frame again: for which share of them, and the steps of it."""

    share: float = 0.0
    steps: tuple[Step, ...] = ()
    up_bytes: float = 0.0
    """What the device sends."""

    @property
    def ms(self) -> float:
        """How much later the answer comes."""
        return sum(step.ms for step in self.steps)


NONE_AGAIN: Final = SecondTrip()


@dataclass(frozen=True)
class Priced:
    """A split with its predicted latency, the mean over all frames; `noise_ms` is how far the links' uncertainty may
    move it.
    """

    split: Split
    ms: float
    steps: tuple[Step, ...]
    noise_ms: float = 0.0
    interval_ms: float = 0.0
    """The busiest node or direction of a link, per frame: frames cannot come faster than one in so long."""
    bytes: float = 0.0
    """What all links carry of a frame."""
    up_bytes: float = 0.0
    """What the device sends."""
    down_bytes: float = 0.0
    """What the device receives."""
    device_ms: float = 0.0
    """What the device computes."""
    second: SecondTrip = NONE_AGAIN
    """What sending frames in doubt again takes; counted in everywhere, as often as it happens."""
    loss: float = 0.0
    """The share of answers that may differ from those of the model in one piece."""
    device_mb: float | None = None
    """What the device's slice takes in memory; None when it is not known."""
    rebuilt: float | None = None
    """How alike (SSIM) to the picture is what can be rebuilt from what leaves the device; None when not measured."""

    @property
    def once_ms(self) -> float:
        """The latency of a frame that is sent once."""
        return self.ms - self.second.share * self.second.ms

    @property
    def longest_ms(self) -> float:
        """The latency of a frame that is sent as often as any is."""
        return self.once_ms + self.second.ms

    def score(self, objective: Objective) -> float:
        """What `objective` makes of it; less is better."""
        return (
            objective.latency * self.ms
            + objective.interval * self.interval_ms
            + objective.kilobytes * self.bytes / 1e3
            + objective.device_ms * self.device_ms
        )


def price(problem: Problem, split: Split) -> Priced:
    """The predicted steps of `split`, and what they cost.

    Raises UnsatisfiableError with the reason when it cannot be run or priced, or must never be run.
    """
    nodes = [node_facts(problem, node) for node in split.nodes]
    cells = [_row(problem, cut) for cut in split.cuts]
    reason = breach(problem, split)
    if reason:
        raise UnsatisfiableError(reason)
    ends = [*(row for row, _ in cells), len(problem.codings.cuts) - 1]
    steps, noise = [_run(nodes[0], None, ends[0])], 0.0
    busy: dict[str, float] = defaultdict(float)
    for hop, (sender, receiver) in enumerate(pairwise(nodes)):
        cell, link = cells[hop], measured_link(problem, sender.node, receiver.node)
        _check_fits(problem, cell, split.cuts[hop], sender, receiver)
        leg = _leg(problem, problem.codings, cell, link, sender, receiver)
        busy[leg[1].where] += wire_ms(link, float(problem.codings.coded_bytes[cell]))
        noise += _noise(link, leg[1].ms)
        steps += [*leg, _run(receiver, ends[hop], ends[hop + 1])]
    second = NONE_AGAIN
    if split.cuts:
        link = measured_link(problem, split.nodes[0], split.nodes[-1])
        answer_step = _answer(problem, link, split)
        second = _second_trip(problem, split, cells, link, (steps[-1], answer_step))
        busy[">".join(split.nodes[:2])] += second.share * wire_ms(link, second.up_bytes)
        busy[answer_step.where] += (1 + second.share) * wire_ms(link, problem.answer_bytes, down=True)
        noise += _noise(link, answer_step.ms)
        steps += [*_doubt(second), answer_step]
    computed, sent = _computed(steps, second), [float(problem.codings.coded_bytes[cell]) for cell in cells]
    up_bytes = (sent[0] if sent else 0.0) + second.share * second.up_bytes
    down_bytes = (1 + second.share) * problem.answer_bytes if sent else 0.0
    return Priced(
        split,
        sum(step.ms for step in steps),
        tuple(steps),
        noise,
        interval_ms=max((*(computed[node.node] / node.lanes for node in nodes), *busy.values())),
        bytes=up_bytes + sum(sent[1:]) + down_bytes,
        up_bytes=up_bytes,
        down_bytes=down_bytes,
        device_ms=computed[split.nodes[0]],
        second=second,
        loss=sum(float(loss_of(problem)[cell]) for cell in cells),
        device_mb=None if problem.memory_mb is None else float(problem.memory_mb[ends[0]]),
        rebuilt=_rebuilt(problem, cells),
    )


def _rebuilt(problem: Problem, cells: list[tuple[int, int]]) -> float | None:
    if problem.rebuilt is None or not cells:
        return None if cells else 0.0
    alike = float(problem.rebuilt[cells[0][0]])
    return None if np.isnan(alike) else alike


def _computed(steps: Iterable[Step], second: SecondTrip) -> dict[str, float]:
    """What each node computes, in ms."""
    busy: dict[str, float] = defaultdict(float)
    for share, some in ((1.0, steps), (second.share, second.steps)):
        for step in some:
            if step.what in ("run", "encode", "decode"):
                busy[step.where] += share * step.ms
    return busy


def _doubt(second: SecondTrip) -> tuple[Step, ...]:
    """What it adds to the mean, as a step."""
    return (_step("other", DOUBT, second.share * second.ms),) if second.share else ()


def _second_trip(
    problem: Problem, split: Split, cells: list[tuple[int, int]], link: LinkFacts, behind: tuple[Step, ...]
) -> SecondTrip:
    """Sending again what is in doubt, to the worker at the end of `link`; `behind` are its run and answer, as at first.

    Raises UnsatisfiableError where more than one worker would have to be asked.
    """
    look = problem.codings.second
    asks = [cut for cut, cell in zip(split.cuts, cells, strict=True) if look is not None and look.share[cell] > 0]
    if look is None or not asks:
        return NONE_AGAIN
    if len(cells) > 1:
        raise UnsatisfiableError(f"{asks[0]} sends frames in doubt again, which one worker alone must answer")
    [cell] = cells
    sender, receiver = (node_facts(problem, node) for node in split.nodes)
    leg = _leg(problem, look, cell, link, sender, receiver)
    return SecondTrip(float(look.share[cell]), (*leg, *behind), float(look.coded_bytes[cell]))


def loss_of(problem: Problem) -> Floats:
    """The loss of each coding. Those of two cuts add up: a frame that either of them turns is wrong."""
    return np.where(problem.codings.lossless, 0.0, 1.0 - problem.codings.agreement)


def node_facts(problem: Problem, node: str) -> NodeFacts:
    """The node's facts. Raises UnsatisfiableError when it is not there or has no profile."""
    facts = problem.facts(node)
    if facts is None:
        known = next((text for text in problem.blocked if text.startswith(f"{node} ")), f"{node} is not there")
        raise UnsatisfiableError(known)
    if facts.elapsed_ms is None:
        raise UnsatisfiableError(f"{node} has no profile yet")
    return facts


def measured_link(problem: Problem, sender: str, receiver: str) -> LinkFacts:
    """The link's facts. Raises UnsatisfiableError when it was never measured."""
    link = problem.links.get((sender, receiver))
    if link is None or link.rtt_ms is None or link.up_mbit is None:
        raise UnsatisfiableError(f"no link measured from {sender} to {receiver}")
    return link


def elapsed(facts: NodeFacts) -> Floats:
    """The node's profile; `node_facts` has seen that there is one."""
    if facts.elapsed_ms is None:
        raise UnsatisfiableError(f"{facts.node} has no profile yet")
    return facts.elapsed_ms


def slowness(problem: Problem, facts: NodeFacts) -> float:
    """How many times slower than the machine that measured the codings."""
    return float(elapsed(facts)[-1]) / problem.reference_ms


def one_way_ms(link: LinkFacts, size: float, *, down: bool = False) -> float:
    """Time for `size` bytes along a measured link, against its direction when `down`."""
    return (link.rtt_ms or 0.0) / 2 + wire_ms(link, size, down=down)


def wire_ms(link: LinkFacts, size: float, *, down: bool = False) -> float:
    """How long `size` bytes keep one direction of the link busy."""
    # Small answers give no train to measure: until a probe has, the way down counts as fast as the way up.
    rate = (link.down_mbit or link.up_mbit) if down else link.up_mbit
    return size * MS_PER_BYTE_AT_1_MBIT / (rate or 1.0)


def _row(problem: Problem, cut: Cut) -> tuple[int, int]:
    codings = problem.codings
    if cut.index not in codings.cuts[:-1]:
        raise UnsatisfiableError(f"cut {cut.index} is none of the model's useful cuts")
    if cut.codec not in codings.codecs:
        raise UnsatisfiableError(f"codec {cut.codec} is not known: known are {', '.join(codings.codecs)}")
    return codings.cuts.index(cut.index), codings.codecs.index(cut.codec)


def _check_fits(problem: Problem, cell: tuple[int, int], cut: Cut, sender: NodeFacts, receiver: NodeFacts) -> None:
    size, second = problem.codings.coded_bytes[cell], problem.codings.second
    if second is not None and second.share[cell] > 0:
        size = np.maximum(size, second.coded_bytes[cell])
    if not size >= 0:
        raise UnsatisfiableError(f"{cut.codec} cannot carry the tensors of cut {cut.index}")
    for facts in (sender, receiver):
        if cut.codec not in facts.codecs:
            raise UnsatisfiableError(f"{facts.node} does not know codec {cut.codec}")
        if size > facts.max_packet_bytes:
            raise UnsatisfiableError(f"{cut} has {size:.0f} bytes, {facts.node} takes {facts.max_packet_bytes}")


def _leg(
    problem: Problem,
    sending: Codings | SecondLook,
    cell: tuple[int, int],
    link: LinkFacts,
    sender: NodeFacts,
    receiver: NodeFacts,
) -> tuple[Step, Step, Step, Step]:
    size = float(sending.coded_bytes[cell])
    return (
        _step("encode", sender.node, float(sending.encode_ms[cell]) * slowness(problem, sender)),
        _link_step(sender.node, receiver.node, one_way_ms(link, size), size),
        _step("decode", receiver.node, float(sending.decode_ms[cell]) * slowness(problem, receiver)),
        _step("queue", receiver.node, receiver.wait_ms),
    )


def _answer(problem: Problem, link: LinkFacts, split: Split) -> Step:
    ms = one_way_ms(link, problem.answer_bytes, down=True)
    return _link_step(split.nodes[-1], split.nodes[0], ms, problem.answer_bytes)


def _run(facts: NodeFacts, begin: int | None, end: int) -> Step:
    """From one row to another; None is where the frame comes in, which need not be a row of a model without cuts."""
    begin_ms, end_ms = (0.0 if row is None else float(elapsed(facts)[row]) for row in (begin, end))
    return _step("run", facts.node, max(0.0, end_ms - begin_ms))


def _step(what: str, where: str, ms: float) -> Step:
    return Step.model_validate({"what": what, "where": where, "ms": ms})


def _link_step(sender: str, receiver: str, ms: float, size: float) -> Step:
    return Step(what="link", where=f"{sender}>{receiver}", ms=ms, bytes=round(size))


def _noise(link: LinkFacts, ms: float) -> float:
    return (1.0 - link.confidence) * ms / 2
