"""Sending again the frames whose answers are in doubt, for any way to send: what that takes, from what once took.

As the gateway measures it for `t5+t1` to `t12+t8`: doubtful are those in whose first answers the best score leads the
second by least. The share of doubtful frames and the finer setting are fixed, not chosen by what agrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splitbus_gateway.second_look import doubt_below
from splitbus_runtime.engine import Array
from splitbus_schemas.codecs import FINER


@dataclass(frozen=True)
class Frames:
    """A setting's bytes, whether the answer stayed, and its lead, for each frame; nan where it has no scores."""

    sizes: Array
    same: Array
    leads: Array


def twice(settings: Sequence[Frames]) -> list[tuple[float, float]]:
    """Mean bytes and agreement of each setting that has a finer one to send doubtful frames in; finest first given.

    A way that has a dozen settings sends them FINER settings finer, one of six half as many.
    """
    finer = FINER if len(settings) > 2 * FINER else FINER // 2
    found = []
    for first, second in zip(settings[finer:], settings, strict=False):
        if np.isnan(first.leads).any():
            return []
        doubtful = first.leads < doubt_below(first.leads)
        size = np.mean(first.sizes + doubtful * second.sizes)
        found.append((float(size), float(np.mean(np.where(doubtful, second.same, first.same)))))
    return found
