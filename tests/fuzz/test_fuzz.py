"""A short run over every decoder: the committed corpus, then damaged copies, each within bounds of time and memory.

`make fuzz` is the long one, with atheris. `SPLITBUS_FUZZ_RUNS` sets the number of damaged inputs of each decoder here.
"""

from __future__ import annotations

import itertools
import os
import resource
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.corpus import committed, made
from tests.fuzz.mutate import mutants
from tests.fuzz.targets import KINDS, TARGETS, try_one

from splitbus_schemas.limits import MAX_TENSOR_BYTES
from splitbus_schemas.messages import BlobRequest, Message

RUNS = int(os.environ.get("SPLITBUS_FUZZ_RUNS", "4000"))
CHECKED = {"packet", "signed", "journal", "parts"}
"""A checksum or signature refuses all damage; parts tell nothing."""

SECONDS = 3.0
"""For one input; the slowest takes a hundredth of it, but machines pause."""

MEMORY = 2 * MAX_TENSOR_BYTES + 16 * 2**20
"""For one input: the largest tensor, coded and decoded."""


def run_bounded(name: str, data: bytes) -> bool:
    """Try an input; fails when it takes too long or too much."""
    tracemalloc.reset_peak()
    before, began = tracemalloc.get_traced_memory()[0], time.monotonic()
    read = try_one(name, data)
    took, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1] - before
    assert took < SECONDS, f"{name} took {took:.1f} s for {data!r}"
    assert peak < MEMORY, f"{name} took {peak >> 20} MB for {data!r}"
    return read


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_read_or_refused(name: str) -> None:
    inputs = committed(name)
    outcomes = {seed: run_bounded(name, data) for seed, data in inputs.items()}
    own = [seed for target, seed in made() if target == name and seed not in {"key", "unsigned"}]
    assert [seed for seed in own if not outcomes[seed]] == [], "what our own encoders made is read"


@pytest.mark.clocked
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused(name: str) -> None:
    seeds = list(committed(name).values())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = [run_bounded(name, data) for data in itertools.islice(mutants(seeds, seed=5), RUNS)]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEMORY >> 10, f"{name} made the process {grown >> 10} MB larger"
    if name not in {
        "packet",
        "parts",
        "signed",
        "journal",
    }:  # a checksum or signature refuses all damage, parts tell nothing
        assert 0 < sum(outcomes) < len(outcomes), "some damage matters, some does not; or nothing was tried"


def test_the_corpus_is_what_the_encoders_make_and_small() -> None:
    """`python -m tests.fuzz.corpus` writes it. Coded bytes may differ with another version of a library."""
    for (target, name), data in made().items():
        assert name in committed(target), f"run python -m tests.fuzz.corpus: {target}/{name} is missing"
        if target in {"message", "signed", "text"}:
            assert committed(target)[name] == data, f"run python -m tests.fuzz.corpus: {target}/{name} differs"
    sizes = [len(data) for target in TARGETS for data in committed(target).values()]
    assert sum(sizes) < 400_000


def test_every_message_is_fuzzed() -> None:
    ours = {kind for kind in Message.__subclasses__() if kind.__module__.startswith("splitbus_schemas.")}
    assert set(KINDS) == ours
    assert BlobRequest in KINDS


def test_make_fuzz_runs_every_decoder() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    fuzzed = next(line for line in makefile.splitlines() if line.startswith("FUZZED :="))
    assert set(fuzzed.removeprefix("FUZZED :=").split()) == set(TARGETS)
