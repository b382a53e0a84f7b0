"""The price of one way to run the model, step by step, and its terms: what `planner` minimises, for one candidate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from splitbus_gateway.privacy import breach
from splitbus_gateway.problem import Cut, Floats, LinkFacts, NodeFacts, Objective, Problem, Split
from splitbus_schemas.errors import UnsatisfiableError
from splitbus_schemas.messages import Step

MS_PER_BYTE_AT_1_MBIT: Final = 8e-3


@dataclass(frozen=True)
class Priced:
    """A split with its predicted latency; `noise_ms` is how far the links' uncertainty may move it."""

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
    loss: float = 0.0
    """The share of answers that may differ from those of the model in one piece."""
    device_mb: float | None = None
    """What the device's slice takes in memory; None when it is not known."""
    rebuilt: float | None = None
    """How alike (SSIM) to the picture is what can be rebuilt from what leaves the device; None when not measured."""

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
        leg = _leg(problem, cell, link, sender, receiver)
        busy[leg[1].where] += wire_ms(link, float(problem.codings.coded_bytes[cell]))
        noise += _noise(link, leg[1].ms)
        steps += [*leg, _run(receiver, ends[hop], ends[hop + 1])]
    if split.cuts:
        link = measured_link(problem, split.nodes[0], split.nodes[-1])
        steps.append(_answer(problem, link, split))
        busy[steps[-1].where] += wire_ms(link, problem.answer_bytes, down=True)
        noise += _noise(link, steps[-1].ms)
    computed = _computed(steps)
    sent = [float(problem.codings.coded_bytes[cell]) for cell in cells]
    answer = problem.answer_bytes if sent else 0.0
    return Priced(
        split,
        sum(step.ms for step in steps),
        tuple(steps),
        noise,
        interval_ms=max((*(computed[node.node] / node.lanes for node in nodes), *busy.values())),
        bytes=sum(sent) + answer,
        up_bytes=sent[0] if sent else 0.0,
        down_bytes=answer,
        device_ms=computed[split.nodes[0]],
        loss=sum(float(loss_of(problem)[cell]) for cell in cells),
        device_mb=None if problem.memory_mb is None else float(problem.memory_mb[ends[0]]),
        rebuilt=_rebuilt(problem, cells),
    )


def _rebuilt(problem: Problem, cells: list[tuple[int, int]]) -> float | None:
    if problem.rebuilt is None or not cells:
        return None if cells else 0.0
    alike = float(problem.rebuilt[cells[0][0]])
    return None if np.isnan(alike) else alike


def _computed(steps: Iterable[Step]) -> dict[str, float]:
    """What each node computes, in ms."""
    busy: dict[str, float] = defaultdict(float)
    for step in steps:
        if step.what in ("run", "encode", "decode"):
            busy[step.where] += step.ms
    return busy


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
    size = problem.codings.coded_bytes[cell]
    if not size >= 0:
        raise UnsatisfiableError(f"{cut.codec} cannot carry the tensors of cut {cut.index}")
    for facts in (sender, receiver):
        if cut.codec not in facts.codecs:
            raise UnsatisfiableError(f"{facts.node} does not know codec {cut.codec}")
        if size > facts.max_packet_bytes:
            raise UnsatisfiableError(f"{cut} has {size:.0f} bytes, {facts.node} takes {facts.max_packet_bytes}")


def _leg(
    problem: Problem, cell: tuple[int, int], link: LinkFacts, sender: NodeFacts, receiver: NodeFacts
) -> tuple[Step, Step, Step, Step]:
    codings = problem.codings
    size = float(codings.coded_bytes[cell])
    return (
        _step("encode", sender.node, float(codings.encode_ms[cell]) * slowness(problem, sender)),
        _link_step(sender.node, receiver.node, one_way_ms(link, size), size),
        _step("decode", receiver.node, float(codings.decode_ms[cell]) * slowness(problem, receiver)),
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
