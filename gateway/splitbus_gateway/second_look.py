"""What sending again the frames whose answers are in doubt gives and takes, from what sending each once gave. Pure.

Whoever gets an answer sees by how much its best score leads the second best; where a codec turned an answer, that lead
is small. So a coarse coding of all frames and a fine one of some keeps more answers than one coding of all in as many
bytes. The same is known of cascades of classifiers (Wang et al., "IDK Cascades", UAI 2018), whose stages are models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from splitbus_gateway.judging import Answers, Judge, Verdict
from splitbus_gateway.problem import Flags, Floats
from splitbus_runtime.engine import Array
from splitbus_runtime.sameness import is_scores, lead

SHARE: Final = 0.2
"""Of the answers, those with the smallest lead are in doubt: fixed beforehand, not chosen by which of them changed."""


@dataclass(frozen=True, eq=False)
class Sent:
    """A codec's bytes for each sample, the medians of its times, and the answers, of one cut."""

    sizes: Floats
    encode_ms: float
    decode_ms: float
    answers: Answers


@dataclass(frozen=True, eq=False)
class Looked:
    """Some samples sent again: `sent` counts both times, `share` of them have a lead `below` that."""

    sent: Sent
    verdict: Verdict
    share: float
    below: float


def has_lead(answer: Mapping[str, Array], outputs: Sequence[str]) -> bool:
    """Whether these outputs of an answer can be in doubt: all of them are class scores."""
    return all(is_scores(array) for array in _shown(answer, outputs))


def doubt_below(leads: Floats) -> float:
    """The lead below which an answer is in doubt, by those of the samples' answers."""
    return float(np.quantile(leads, SHARE))


def look_again(first: Sent, again: Sent, expected: Answers, outputs: Sequence[str], judge: Judge) -> Looked | None:
    """What is kept when the doubtful answers of `first` are replaced by those of `again`; None where answers have no
    scores, or no lead stands out.
    """
    if not all(has_lead(answer, outputs) for answer in first.answers):
        return None
    leads = np.array([lead(_shown(answer, outputs)) for answer in first.answers])
    below = doubt_below(leads) if np.isfinite(leads).all() and leads.size else 0.0
    doubtful = leads < below
    share = float(np.mean(doubtful)) if leads.size else 0.0
    if not 0 < share < 1:
        return None
    found = [b if again_ else a for a, b, again_ in zip(first.answers, again.answers, doubtful, strict=True)]
    sent = Sent(
        first.sizes + doubtful * again.sizes,
        first.encode_ms + share * again.encode_ms,
        first.decode_ms + share * again.decode_ms,
        found,
    )
    return Looked(sent, _verdict(expected, found, outputs, judge, doubtful), share, below)


def _shown(answer: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    return [answer[name] for name in outputs]


def _verdict(expected: Answers, found: Answers, outputs: Sequence[str], judge: Judge, doubtful: Flags) -> Verdict:
    """Each part judged by itself: what a lead says of a loss is another thing in each."""
    parts = [
        (np.mean(flags), judge.part(flags).judge(_those(expected, flags), _those(found, flags), outputs))
        for flags in (doubtful, ~doubtful)
    ]
    accuracies = [weight * part.accuracy for weight, part in parts if part.accuracy is not None]
    return Verdict(
        float(sum(weight * part.agreement for weight, part in parts)),
        max(part.error for _, part in parts),
        float(sum(accuracies)) if len(accuracies) == len(parts) else None,
    )


def _those(answers: Answers, flags: Flags) -> Answers:
    return [answer for answer, chosen in zip(answers, flags, strict=True) if chosen]
