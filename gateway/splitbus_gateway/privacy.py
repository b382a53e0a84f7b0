"""What no way may do, not even a pinned one: show what is to be kept, run where nothing may run.

A cut at position p shows what the blocks from p on are given. A tensor that skips blocks crosses several cuts; whoever
sees it at the last of them has what the first block behind its source was given. What can be rebuilt of a picture only
gets less from cut to cut, so that the cut at which a frame leaves the device decides.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from splitbus_gateway.problem import Floats, NodeFacts, Problem, Split

NO_FIGURES: Final = "what cuts show of a picture was not measured, add the model with --calibrate PICTURES"


def blocks(problem: Problem) -> int:
    """How many blocks lie between the problem's cuts."""
    return len(problem.codings.cuts) - 1


def kept_before(problem: Problem) -> NDArray[np.int_]:
    """For each cut, how many blocks are given nothing that crosses it: its position, less where tensors skip blocks."""
    first: dict[str, int] = {}
    kept = np.arange(len(problem.codings.cuts))
    for position, index in enumerate(problem.codings.cuts):
        born = [first.setdefault(tensor, position) for tensor in problem.tensors.get(index, ())]
        kept[position] = min(born, default=position)
    return kept


def off_device(problem: Problem, split: Split) -> int:
    """How many of the last blocks are given something that leaves the device."""
    return _shown(problem, split.cuts[0].index) if split.cuts else 0


def off_site(problem: Problem, split: Split) -> int:
    """How many of the last blocks are given something that goes to a cloud worker."""
    hops = zip(split.cuts, split.nodes[1:], strict=True)
    return max((_shown(problem, cut.index) for cut, node in hops if _tier(problem, node) == "cloud"), default=0)


def rebuilt_at(problem: Problem) -> Floats:
    """How alike to the picture is what is rebuilt at each cut but the last; 1, like the picture, where not measured."""
    count = len(problem.codings.cuts) - 1
    return np.ones(count) if problem.rebuilt is None else np.nan_to_num(problem.rebuilt, nan=1.0)


def missing_figures(problem: Problem) -> list[str]:
    """What to say when pictures are to be kept, but nobody measured what cuts show of them."""
    asked = problem.limits.max_rebuilt is not None and problem.rebuilt is None
    return [f"every cut: {NO_FIGURES}"] if asked else []


def rebuilt(problem: Problem, split: Split) -> float:
    """The same for what leaves the device; 0 when nothing does."""
    return float(rebuilt_at(problem)[problem.codings.cuts.index(split.cuts[0].index)]) if split.cuts else 0.0


def _shown(problem: Problem, index: int) -> int:
    return blocks(problem) - int(kept_before(problem)[problem.codings.cuts.index(index)])


def _tier(problem: Problem, node: str) -> str | None:
    facts = problem.facts(node)
    return facts.tier if facts else None


def may_show(problem: Problem, keep: int) -> int:
    """How many of the last blocks may be shown when `keep` of the first may not; of a shorter model none."""
    return max(0, blocks(problem) - keep)


def must_not_run(problem: Problem, facts: NodeFacts) -> bool:
    """Whether the limits name the node or its tier."""
    return not problem.limits.must_not_run.isdisjoint((facts.node, facts.tier))


def breach(problem: Problem, split: Split) -> str | None:
    """Why `split` must never be run; None when it may. Its cuts and nodes are the problem's."""
    limits = problem.limits
    for node in split.nodes[1:]:
        facts = problem.facts(node)
        if facts and must_not_run(problem, facts):
            return f"{node} must not run"
    shown = (("device", limits.keep_on_device, off_device), ("site", limits.keep_on_site, off_site))
    for place, keep, count in shown:
        if keep and (seen := count(problem, split)) > may_show(problem, keep):
            return f"{split} shows what block {blocks(problem) - seen + 1} is given: {kept(keep)} stays on the {place}"
    if limits.max_rebuilt is not None and (alike := rebuilt(problem, split)) > limits.max_rebuilt:
        return f"{split} shows pictures that are rebuilt {alike:.3g} alike: at most {limits.max_rebuilt:g} is allowed"
    return None


def kept(keep: int) -> str:
    """What a floor of `keep` blocks keeps, in words."""
    return "the input" if keep == 1 else f"all that the first {keep} blocks are given"
