"""A profile as a file: `splitbus profile` writes it, offline planning reads it; and what is believed of a profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import Field

from splitbus_gateway.problem import Floats
from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.messages import Count, Message, NodeProfile

MAX_PROFILE_MS: Final = 600_000.0
"""A model that takes ten minutes is no model but a clock that jumped."""

SUM_TOLERANCE: Final = 0.05
"""The blocks are corrected so that they sum to the whole; a profile that is further off was not made that way."""


class ProfileFile(Message):
    """A model's profile, taken on one machine: what `splitbus profile MODEL --json` prints."""

    kind: Literal["splitbus-profile"] = "splitbus-profile"
    model_name: str = Field(description="The model's file name, for people; `profile.model` is its identity.")
    machine: str = Field(description="Host name and processor, for people.")
    threads: Count = Field(description="That onnxruntime was given; 0 left the choice to it.")
    slowdown: Annotated[float, Field(ge=1)] = Field(default=1.0, description="How much slower the machine was made.")
    made: str = Field(default="", description="When, ISO 8601, by the machine's own clock.")
    after: list[str] = Field(default_factory=list, description="The node after which each block ends.")
    profile: NodeProfile

    @classmethod
    def load(cls, path: Path, *, model: str) -> Self:
        """The profile in a file, which must be one of `model` (its SHA-256). Raises ConfigError with the reason."""
        try:
            found = cls.from_json(path.read_bytes())
            check_profile(found.profile)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror or error}): {_REMEDY}") from error
        except DecodeError as error:
            raise ConfigError(f"{path} is no profile ({error}): {_REMEDY}") from None
        if found.profile.model != model:
            raise ConfigError(
                f"{path} is a profile of another model, {found.model_name} ({found.profile.model[:16]}), "
                f"not of {model[:16]}: {_REMEDY}"
            )
        return found

    def elapsed_ms(self, cuts: Sequence[int]) -> Floats:
        """Milliseconds from the model's input to each of `cuts`, a cut 0 included when it is asked for.

        Raises ConfigError for a cut at which no block of this profile ends.
        """
        found = elapsed_at(self.profile, cuts)
        if found is None:
            ends = ", ".join(map(str, self.profile.cuts))
            raise ConfigError(
                f"the profile of {self.model_name} has blocks that end at {ends}, not at {cuts}: {_REMEDY}"
            )
        return found


_REMEDY: Final = "make one with splitbus profile MODEL --out FILE"


def elapsed_at(profile: NodeProfile, cuts: Sequence[int]) -> Floats | None:
    """Milliseconds from the input to each of `cuts`; None when a block of the profile goes past one of them."""
    elapsed = dict(zip((0, *profile.cuts), np.cumsum([0.0, *profile.block_ms]), strict=True))
    return np.array([elapsed[cut] for cut in cuts]) if elapsed.keys() >= set(cuts) else None


def check_profile(profile: NodeProfile) -> None:
    """Raises DecodeError, with the reason, for a profile that cannot be true."""
    what = f"profile of {profile.node}"
    if not len(profile.cuts) == len(profile.block_ms) == len(profile.spread_ms) or not profile.cuts:
        raise DecodeError(f"{what} has {len(profile.cuts)} cuts for {len(profile.block_ms)} blocks")
    if any(later <= earlier for earlier, later in pairwise(profile.cuts)):
        raise DecodeError(f"{what} names cuts out of order")
    total = sum(profile.block_ms)
    if not 0 < total <= MAX_PROFILE_MS or not 0 < profile.whole_ms <= MAX_PROFILE_MS:
        raise DecodeError(f"{what} takes {total:g} ms, that is not believed")
    if profile.local_ms is not None and not 0 < profile.local_ms <= MAX_PROFILE_MS:
        raise DecodeError(f"{what} takes {profile.local_ms:g} ms in one piece, that is not believed")
    if not math.isclose(total, profile.whole_ms, rel_tol=SUM_TOLERANCE, abs_tol=1e-3 * len(profile.cuts)):
        raise DecodeError(f"{what} has blocks of {total:g} ms and a whole of {profile.whole_ms:g} ms: they must agree")
