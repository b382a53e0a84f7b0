"""The planner: the best of all ways to run a model over up to three tiers, within the limits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from splitbus_gateway.blame import unsatisfiable
from splitbus_gateway.constraints import Bound, bounds_of, keeping_up, unmet, waived
from splitbus_gateway.pricing import Priced, node_facts, price
from splitbus_gateway.problem import OBJECTIVES, Objective, Pinned, Problem, Split
from splitbus_gateway.search import pick, search, weights_of
from splitbus_gateway.ways import find_routes
from splitbus_schemas.errors import UnsatisfiableError

MAX_ALTERNATES: Final = 3
FASTEST: Final = weights_of(OBJECTIVES["latency"])


@dataclass(frozen=True)
class Choice:
    """The best way, and the best of another shape (other cuts, codecs or tiers), both priced by step."""

    best: Priced
    runner_up: Priced | None
    considered: int
    blocked: tuple[str, ...]
    in_time: bool = True
    """Whether the best meets the deadline."""
    pin: Pinned | None = None
    """The pin that was followed."""
    unmet: tuple[str, ...] = ()
    """The limits that the best does not keep: a deadline that no way meets, or what a pin overrides."""


def plan(problem: Problem, *, hard_deadline: bool = False) -> Choice:
    """The best way to run the model; a pin narrows the choice, and the runner-up is then what would be taken free.

    When no way meets the deadline the fastest is taken, unless it is hard. Raises UnsatisfiableError when the device
    has no profile yet, the pin cannot be followed, or no way keeps the limits, naming the one to blame.
    """
    node_facts(problem, problem.device.node)
    choice = _pinned(problem, problem.pin) if problem.pin else _free(problem, hard_deadline=hard_deadline)
    if choice is None:
        raise unsatisfiable(problem, hard_deadline=hard_deadline)
    return choice


def plan_anyway(problem: Problem) -> Choice:
    """As `plan`, for those who must answer frames: what cannot be kept is waived, and `unmet` says what that was.

    Never waived are privacy, agreement and the workers that must not run: the device alone keeps to them. Raises
    UnsatisfiableError when the device has no profile yet, or the pin cannot be followed.
    """
    node_facts(problem, problem.device.node)
    choice = _pinned(problem, problem.pin) if problem.pin else _free(problem)
    if choice is None:
        choice = plan(replace(problem, limits=waived(problem)))
    return replace(choice, unmet=tuple(unmet(problem, choice.best).values()))


def alternates(problem: Problem, chosen: Split) -> tuple[Priced, ...]:
    """Other ways for the same head (same first cut and codec), best first: for when a worker of `chosen` fails.

    They keep to privacy and to the workers that must not run, and stand in for workers that must.
    """
    found = []
    for nodes in find_routes(problem)[0]:
        hops = len(nodes) - 1
        if 1 <= hops <= len(chosen.cuts) and nodes != chosen.nodes:
            found += _priced(problem, [Split(nodes, chosen.cuts[:hops])])
    return tuple(_best_first(problem.objective, found)[:MAX_ALTERNATES])


def _best_first(objective: Objective, ways: Iterable[Priced]) -> list[Priced]:
    return sorted(ways, key=lambda way: (way.score(objective), way.ms, way.split))


def _priced(problem: Problem, splits: Iterable[Split]) -> list[Priced]:
    """Those that can be run."""
    found = []
    for split in splits:
        try:
            found.append(price(problem, split))
        except UnsatisfiableError:
            continue
    return found


def _free(problem: Problem, *, hard_deadline: bool = False) -> Choice | None:
    for weights, bounds in _attempts(problem, hard_deadline=hard_deadline):
        found, considered = search(problem, weights, bounds)
        best = pick(found)
        if best is not None:
            second = pick(way for way in found if way.shape != best.shape)
            rival = price(problem, second.split) if second else None
            return _choice(problem, price(problem, best.split), rival, considered)
    return None


def _attempts(problem: Problem, *, hard_deadline: bool) -> Iterator[tuple[Mapping[str, float], list[Bound]]]:
    """What to minimise within which bounds; the next when there is no way at all."""
    objective, bounds, quick = problem.objective, bounds_of(problem), keeping_up(problem)
    weights, timeless = weights_of(objective), [bound for bound in bounds if bound.limit != "deadline_ms"]
    # The fastest keeps the deadline if any way does, unless some of its frames take two trips.
    moot = timeless == bounds or (objective == OBJECTIVES["latency"] and problem.codings.second is None)
    for extra in (quick, []) if quick else ([],):
        if hard_deadline or not moot:
            yield weights, bounds + extra
        if not hard_deadline:
            yield (weights if timeless == bounds else FASTEST), timeless + extra


def _pinned(problem: Problem, pin: Pinned) -> Choice:
    routes, blocked = find_routes(problem)
    wanted = [
        nodes for nodes in routes if len(nodes) == len(pin.cuts) + 1 and (not pin.workers or nodes[1:] == pin.workers)
    ]
    if not wanted:
        raise UnsatisfiableError(_why_no_route(problem, pin, blocked))
    splits = [Split(nodes, pin.cuts) for nodes in wanted]
    ways = _best_first(problem.objective, _priced(problem, splits)) or [price(problem, splits[0])]
    free = _free(problem)
    if free is None:
        return _choice(problem, ways[0], None, len(splits))
    rival = free.best if free.best.split != ways[0].split else free.runner_up
    return _choice(problem, ways[0], rival, free.considered)


def _why_no_route(problem: Problem, pin: Pinned, blocked: tuple[str, ...]) -> str:
    if pin.workers and len(pin.workers) != len(pin.cuts):
        return f"the pin names {len(pin.cuts)} cuts and {len(pin.workers)} workers: name one worker for each cut"
    missing = [name for name in pin.workers if problem.facts(name) is None]
    if missing and not any(text.startswith(missing[0]) for text in blocked):
        return f"{missing[0]} is not there"
    return "; ".join(blocked) or f"no {len(pin.cuts)} workers are there in the order edge, cloud"


def _choice(problem: Problem, best: Priced, second: Priced | None, considered: int) -> Choice:
    broken = unmet(problem, best)
    return Choice(
        best=best,
        runner_up=second,
        considered=considered,
        blocked=find_routes(problem)[1],
        in_time="deadline_ms" not in broken,
        pin=problem.pin,
        unmet=tuple(broken.values()),
    )
