"""Accuracy as a promise: bounds on a share from counts, and when a promise is in doubt. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import betainc, betaincinv, betaln, xlog1py, xlogy

CONFIDENCE: Final = 0.95
"""One-sided: one setting in twenty that just fails the promise may pass."""

FALSE_ALARMS: Final = 0.02
"""Share of kept promises that are doubted at some time all the same."""

WINDOW: Final = 1000
"""Frames that the guard remembers: an old scene says little of the present one."""


def at_least(agreed: int, checked: int, confidence: float = CONFIDENCE) -> float:
    """The share that is at least there with that confidence, given so many successes (Clopper and Pearson, 1934)."""
    if not 0 <= agreed <= checked:
        raise ValueError(f"{agreed} of {checked} is no count")
    return float(betaincinv(agreed, checked - agreed + 1, 1 - confidence)) if agreed else 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """What the guard found of one setting: frames asked twice, and those that agreed."""

    checked: int = 0
    agreed: int = 0

    def after(self, checked: int, agreed: int) -> Record:
        """With more frames; after WINDOW of them it begins anew."""
        kept = self if self.checked < WINDOW else Record()
        return Record(kept.checked + checked, kept.agreed + agreed)

    def doubts(self, promised: float) -> bool:
        """Whether these frames say that less than the promised share agrees.

        The likelihood ratio of all smaller shares, equally weighted, to the promised one: a kept promise makes it
        reach 1 / FALSE_ALARMS with at most that probability however often one looks (Ville 1939; Robbins 1970).
        """
        if self.checked == self.agreed:
            return False
        if promised >= 1.0:
            return True
        k, failed = self.agreed, self.checked - self.agreed
        mass = betainc(k + 1, failed + 1, promised)
        if mass <= 0.0:
            return False
        against = betaln(k + 1, failed + 1) + np.log(mass) - np.log(promised)
        return bool(against - xlogy(k, promised) - xlog1py(failed, -promised) >= -np.log(FALSE_ALARMS))
