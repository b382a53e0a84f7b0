"""What benchmarks try on a site: which models, which ways to run them, and when a link counts as measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from _site import CLOUD, CODECS, EDGE, Camera, Site, Split
from architectures import ARCHITECTURES, WIDE, build

from splitbus_schemas import messages as m
from splitbus_schemas.errors import SplitbusError

NO_MODEL: Final = "no model: give --models DIR with .onnx files, or a name of benchmarks/architectures.py"

SETTLE_S: Final = 2.5
SETTLE_SAMPLES: Final = 6
SETTLE_LIMIT_S: Final = 15.0
"""A link counts as measured after so long and so many samples since it changed, or at last after the limit."""


def models_of(
    folder: Path | None, scratch: Path, only: Sequence[str] | None = None, *, wide: bool = False
) -> dict[str, Path]:
    """Those in a folder and the six architectures, by names that may stand in topics; those of `only` if given.

    `wide` adds the one without a narrow place.
    """
    given = {path.stem.replace("_", "-").lower(): path for path in sorted(folder.glob("*.onnx"))} if folder else {}
    names = {name.replace("_", "-"): name for name in (ARCHITECTURES | WIDE if wide else ARCHITECTURES)}
    wanted = {name.replace("_", "-") for name in only} if only else {*given, *names}
    built = {key: build(name, scratch) for key, name in names.items() if key in wanted}
    return {key: path for key, path in {**given, **built}.items() if key in wanted}


def registered(
    site: Site, models: dict[str, Path], notes: list[str], tell: Callable[[str], None]
) -> dict[str, m.ModelCard]:
    """Their cards; a model that cannot be registered is left out with a note."""
    cards = {}
    for name, path in models.items():
        tell(f"registering {name}")
        try:
            cards[name] = site.register(name, path)
        except SplitbusError as error:
            notes.append(str(error))
    return cards


def ways(
    card: m.ModelCard, known: Iterable[Split], *, few: bool = False, codecs: Sequence[str] = CODECS
) -> list[Split]:
    """The ways to try: all on the device, the input, cuts at a quarter, half and three quarters, and those `known`."""
    inner = card.cuts[1:-1]
    found = [Split()]
    if 0 in card.cuts[:-1]:
        found += [Split(((0, codec),), (EDGE,)) for codec in (("zstd",) if few else ("raw", "zstd"))]
    if inner:
        first, middle, last = (inner[len(inner) * share // 4] for share in (1, 2, 3))
        picks = [(middle, "q8", EDGE)]
        if not few:
            picks += [(first, "q8", EDGE), (last, "q8", EDGE), (middle, "zstd", EDGE), (middle, "q8", CLOUD)]
        found += [Split(((cut, codec),), (node,)) for cut, codec, node in picks if codec in codecs]
    return list(dict.fromkeys([*found, *known]))


def settle(camera: Camera, *, traffic: bool = True) -> bool:
    """Wait until the links were measured anew, with frames under way meanwhile; False when that took too long."""
    begun = time.monotonic()
    before = _samples(camera)
    while time.monotonic() - begun < SETTLE_LIMIT_S:
        if traffic:
            camera.ask(3, 0.5, 1)
        else:
            time.sleep(0.2)
        fresh = all(new - before[peer] >= SETTLE_SAMPLES for peer, new in _samples(camera).items())
        if fresh and time.monotonic() - begun > SETTLE_S:
            return True
    return False


def _samples(camera: Camera) -> dict[str, int]:
    return {peer: link.samples if (link := camera.link(peer)) else 0 for peer in (EDGE, CLOUD)}
