"""Fuzzes one decoder with atheris, which looks for new paths: `python -m tests.fuzz.run TARGET [libFuzzer's options]`.

`make fuzz` runs all of them. Inputs of the corpus that is committed are where it begins; new ones go to build/fuzz.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(
    include=[
        "splitbus_schemas",
        "splitbus_runtime.trust",
        "splitbus_runtime.sealing",
        "splitbus_runtime.keyring",
        "splitbus_runtime.publish_packet",
        "splitbus_device.cards",
        "splitbus_device.journal",
        "splitbus_device.recorded",
        "msgpack.fallback",
    ]
):
    from tests.fuzz.corpus import FOLDER
    from tests.fuzz.targets import TARGETS, try_one

FINDS: Final = Path("build") / "fuzz"
OPTIONS: Final = ("-max_len=65536", "-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1")
"""An input that takes more than 5 seconds or a process of more than 1 GB is a find, like an exception."""


def main(arguments: list[str]) -> None:
    """Ends the process: with 0 after the runs that were asked for, else with the input that failed in build/fuzz."""
    name, *options = arguments
    if name not in TARGETS:
        sys.exit(f"{name} is no decoder: known are {', '.join(TARGETS)}")
    scratch = FINDS / name
    scratch.mkdir(parents=True, exist_ok=True)
    prefix = f"-artifact_prefix={FINDS}/{name}-"
    atheris.Setup(["fuzz", *OPTIONS, prefix, *options, str(scratch), str(FOLDER / name)], lambda data: _one(name, data))
    atheris.Fuzz()


def _one(name: str, data: bytes) -> None:
    try_one(name, data)


if __name__ == "__main__":
    main(sys.argv[1:])
