"""The named rivals against hand-computed cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.gateway.given import LINKS, facts, question

from splitbus_gateway.offline import Demands
from splitbus_gateway.policies import (
    POLICIES,
    Policy,
    all_local,
    dynamic_split,
    dyno_like,
    image_upload,
    natural_bottlenecks,
    neurosurgeon,
)
from splitbus_gateway.problem import Cut, Limits, LinkFacts, Problem, Split

LOCAL = Split(("device",))


def at_rate(mbit: float, rtt_ms: float = 2.0) -> Problem:
    """With the edge alone, behind a link of that rate."""
    link = LinkFacts(rtt_ms, mbit, mbit)
    return replace(question(links=LINKS[:1]), links={("device", "edge1"): link})


def test_neurosurgeon_counts_compute_and_upload_alone() -> None:
    # local 100; input 100 kB x 8/R + 20; cut 2: 40 + 40 kB x 8/R + 12; cut 5: 80 + 8 kB x 8/R + 4
    assert neurosurgeon(at_rate(100)) == Split(("device", "edge1"), (Cut(0, "raw"),))  # 8 + 20
    assert neurosurgeon(at_rate(9)) == Split(("device", "edge1"), (Cut(2, "raw"),))  # 87.6; the input 108.9
    assert neurosurgeon(at_rate(4.2)) == Split(("device", "edge1"), (Cut(5, "raw"),))  # 99.2
    assert neurosurgeon(at_rate(3)) == LOCAL
    assert neurosurgeon(at_rate(100, rtt_ms=5000.0)) == Split(("device", "edge1"), (Cut(0, "raw"),))


def test_neurosurgeon_believes_its_regression() -> None:
    believed = {"device": np.array([0.0, 1.0, 2.0, 3.0])}
    assert neurosurgeon(at_rate(100), believed) == LOCAL


def test_dynamic_split_knows_natural_bottlenecks_alone() -> None:
    problem = at_rate(9)
    assert natural_bottlenecks(problem) == (1, 2)
    assert dynamic_split(problem).cuts == (Cut(2, "raw"),)
    sizes = problem.codings.coded_bytes.copy()
    sizes[1, 0] = 100e3  # no less than the input
    flat = replace(problem, codings=replace(problem.codings, coded_bytes=sizes))
    assert natural_bottlenecks(flat) == (2,)
    assert dynamic_split(flat).cuts == (Cut(5, "raw"),)  # 91.1, cut 2 would be 140.9


def test_image_upload_takes_the_smallest_coding_of_the_input() -> None:
    assert image_upload(at_rate(5)) == Split(("device", "edge1"), (Cut(0, "q8"),))
    exact = replace(at_rate(5), limits=Limits(min_agreement=0.995))
    assert image_upload(exact).cuts == (Cut(0, "zstd"),)
    codings = replace(at_rate(5).codings, codecs=("raw", "jpeg85", "q8"))
    nodes = {"device": replace(at_rate(5).device, codecs=frozenset(codings.codecs))}
    workers = tuple(replace(worker, codecs=frozenset(codings.codecs)) for worker in at_rate(5).workers)
    camera = replace(at_rate(5), codings=codings, device=nodes["device"], workers=workers)
    assert image_upload(camera).cuts == (Cut(0, "jpeg85"),)


def test_dyno_uses_8_bits_and_keeps_to_the_agreement() -> None:
    assert dyno_like(at_rate(9)).cuts[0].codec == "q8"
    assert dyno_like(replace(at_rate(9), limits=Limits(min_agreement=0.995))) == LOCAL


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_each_runs_all_on_the_device_when_nobody_else_is_there(policy: Policy) -> None:
    assert policy.choose(question(Demands(), links=())) == LOCAL
    assert policy.about


def test_all_local() -> None:
    assert all_local(question(model=facts())) == LOCAL
