"""Why a plan changed, in one sentence for people and one word for programs: what moved most since. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from splitbus_gateway.planner import Choice
from splitbus_gateway.pricing import Priced, price
from splitbus_gateway.problem import Problem, Split
from splitbus_schemas.errors import UnsatisfiableError
from splitbus_schemas.messages import Cause, Step

_LEAST_MS = 0.5
"""A smaller change of a step is no cause of anything."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, for people, and what kind of cause that was; None when it is no change."""

    text: str
    cause: Cause | None


def first_plan(choice: Choice) -> Reason:
    """Why the first plan is what it is."""
    return Reason(f"first plan: {takes(choice.best)}{_rival(choice)}", "first")


def pinned(choice: Choice, by: str) -> Reason:
    """Why a pinned plan is what it is."""
    free = f"; free choice would be {takes(choice.runner_up)}" if choice.runner_up else ""
    return Reason(f"pinned{f' by {by}' if by else ''}: {takes(choice.best)}{free}", "pin")


def changed(then: Problem | None, now: Problem, current: Split, best: Priced, breach: str = "") -> Reason:
    """Why `best` replaces `current`: the limit that `current` does not keep, or what differs from the facts then."""
    try:
        running = price(now, current)
    except UnsatisfiableError as lost:
        return Reason(f"{lost}: {current} cannot go on, {takes(best)}", _lost(then, now))
    found = Reason(f"{breach}, which is not kept", "limits") if breach else _cause(then, now, current, best.split)
    return Reason(f"{found.text}: {current} now takes {running.ms:.0f} ms, {best.split} {best.ms:.0f} ms", found.cause)


def _lost(then: Problem | None, now: Problem) -> Cause:
    return "limits" if then is not None and then.limits != now.limits else "nodes"


def takes(priced: Priced) -> str:
    """A way and its price."""
    return f"{priced.split} takes {priced.ms:.0f} ms"


def _rival(choice: Choice) -> str:
    return f", {choice.runner_up.split} {choice.runner_up.ms:.0f} ms" if choice.runner_up else ""


def _cause(then: Problem | None, now: Problem, current: Split, best: Split) -> Reason:
    if then is None:
        return Reason("measured since the gateway started", "first")
    if then.pin is not None and now.pin is None:
        return Reason("no pin any more", "pin")
    if (then.limits, then.objective) != (now.limits, now.objective):
        return Reason("other limits or another objective", "limits")
    moved = [change for split in (current, best) for change in _moved_steps(then, now, split)]
    if not moved:
        return _arrival(then, now, best)
    before, after = max(moved, key=lambda pair: abs(pair[1].ms - pair[0].ms))
    return _sentence(then, now, before, after)


def _arrival(then: Problem, now: Problem, best: Split) -> Reason:
    """What `best` needs and was not known then."""
    came = [node for node in best.nodes if then.facts(node) is None]
    if came:
        return Reason(f"{' and '.join(came)} joined", "nodes")
    profiled = [node for node in best.nodes if (facts := then.facts(node)) and facts.elapsed_ms is None]
    if profiled:
        return Reason(f"{' and '.join(profiled)} measured the model", "speed")
    hops = {*pairwise(best.nodes), (best.nodes[0], best.nodes[-1])}
    measured = [hop for hop in sorted(hops) if hop in now.links and hop not in then.links]
    if measured:
        names = ", ".join(">".join(hop) for hop in measured)
        text = f"link {names} is measured now" if len(measured) == 1 else f"links {names} are measured now"
        return Reason(text, "link")
    return Reason("another way is faster", None)


def _moved_steps(then: Problem, now: Problem, split: Split) -> list[tuple[Step, Step]]:
    try:
        before, after = price(then, split).steps, price(now, split).steps
    except UnsatisfiableError:
        return []
    pairs = (pair for pair in zip(before, after, strict=True) if pair[0].what != "other")  # it follows from the others
    return [pair for pair in pairs if abs(pair[1].ms - pair[0].ms) >= _LEAST_MS]


def _sentence(then: Problem, now: Problem, before: Step, after: Step) -> Reason:
    if after.what == "link":
        return _link_sentence(then, now, before, after)
    if after.what == "queue":
        busier = "busier" if after.ms > before.ms else "less busy"
        return Reason(f"{after.where} is {busier} (a job waits {after.ms:.0f} ms, {before.ms:.0f} before)", "load")
    slower = "slower" if after.ms > before.ms else "faster"
    return Reason(f"{after.where} runs {slower} ({after.ms:.0f} ms, {before.ms:.0f} before)", "speed")


def _link_sentence(then: Problem, now: Problem, before: Step, after: Step) -> Reason:
    sender, _, receiver = after.where.partition(">")
    backwards = (sender, receiver) not in now.links
    ends = (receiver, sender) if backwards else (sender, receiver)
    old, new = then.links[ends], now.links[ends]
    rates = (old.down_mbit, new.down_mbit) if backwards else (old.up_mbit, new.up_mbit)
    old_rtt, new_rtt = old.rtt_ms or 0.0, new.rtt_ms or 0.0
    wire = after.ms - before.ms
    if abs(new_rtt - old_rtt) / 2 > abs(wire) / 2 or None in rates:
        return Reason(f"round trip {ends[0]}>{ends[1]} {_went(old_rtt, new_rtt)} ms", "link")
    name = "downlink" if backwards else "uplink"
    old_rate, new_rate = rates[0] or 0.0, rates[1] or 0.0
    if old_rate and abs(new_rate / old_rate - 1) < 0.02:
        size = "larger" if wire > 0 else "smaller"
        return Reason(f"frames of {sender} are {size} ({after.bytes} bytes, {before.bytes} before)", "sizes")
    return Reason(f"{name} {ends[0]}>{ends[1]} {_went(old_rate, new_rate)} Mbit/s", "link")


def _went(old: float, new: float) -> str:
    return f"{'fell' if new < old else 'rose'} from {old:.1f} to {new:.1f}"
