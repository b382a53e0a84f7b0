"""How good a codec's answers are: agreement with the un-split model's, and accuracy where the right ones are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from splitbus_gateway.agreement import agreement
from splitbus_gateway.measures import Measure
from splitbus_gateway.problem import Flags
from splitbus_runtime.engine import Array
from splitbus_runtime.sameness import is_scores, relative_error
from splitbus_schemas.errors import ModelError

Answers = Sequence[Mapping[str, Array]]


@dataclass(frozen=True)
class Verdict:
    """Of one codec: `agreement`, the largest relative `error` of an output, and `accuracy` with labels."""

    agreement: float
    error: float
    accuracy: float | None


@dataclass(frozen=True)
class Judge:
    """Right answers by sample, if known, and what the owner counts as the same answer."""

    labels: tuple[int, ...] | None = None
    measure: Measure | None = None

    def part(self, chosen: Flags) -> Judge:
        """Of these samples alone."""
        if self.labels is None:
            return self
        return replace(self, labels=tuple(right for right, one in zip(self.labels, chosen, strict=True) if one))

    def accuracy(self, answers: Answers) -> float | None:
        """The share of right answers; None without labels. Raises ModelError when no output is class scores."""
        if self.labels is None:
            return None
        name = next((name for name, array in answers[0].items() if is_scores(array)), None)
        if name is None:
            outputs = ", ".join(f"{name} {list(array.shape)}" for name, array in answers[0].items())
            raise ModelError(f"labels need class scores, the model gives {outputs}: judge its answers with --measure")
        highest = answers[0][name].shape[-1] - 1
        if max(self.labels, default=0) > highest:
            raise ModelError(f"a label is {max(self.labels)}, the model's classes are 0 to {highest}")
        best = [int(answer[name][0].argmax()) for answer in answers]
        return float(np.mean([found == right for found, right in zip(best, self.labels, strict=True)]))

    def check(self, answers: Answers) -> None:
        """Raises ModelError for a measure by which an answer is not as good as itself: no codec could keep it."""
        if self.measure is None:
            return
        lost = sum(not self.measure.holds(answer, answer) for answer in answers)
        if lost:
            raise ModelError(
                f"by the measure {self.measure.name} the un-split model's own answer is not the same as itself on "
                f"{lost} of {len(answers)} samples: correct it (outputs may need decoding before they are boxes)"
            )

    def judge(self, expected: Answers, found: Answers, outputs: Sequence[str]) -> Verdict:
        """What answers keep that were `found` behind a codec, in these outputs."""
        errors = [relative_error(a[n], f[n]) for a, f in zip(expected, found, strict=True) for n in outputs]
        whole = [{**a, **f} for a, f in zip(expected, found, strict=True)]
        if self.measure is None:
            kept = min((agreement([a[n] for a in expected], [f[n] for f in found]) for n in outputs), default=1.0)
        else:
            kept = float(np.mean([self.measure.holds(*pair) for pair in zip(expected, whole, strict=True)]))
        return Verdict(kept, float(np.max(errors, initial=0.0)), self.accuracy(whole))


BY_ANSWERS: Final = Judge()
"""Without labels, by what the outputs look like."""
