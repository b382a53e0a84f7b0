"""When a plan asks for temporal mode, and how what it saves is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.gateway import given

from splitbus_gateway.config import PlannerSettings
from splitbus_gateway.daemon import stream_settings
from splitbus_gateway.drafts import draft
from splitbus_gateway.facts import ModelFacts, build_problem
from splitbus_gateway.pricing import Priced, price
from splitbus_gateway.problem import Cut, Limits, Problem, Split
from splitbus_gateway.state import StreamView, World
from splitbus_schemas.differences import SLACK, STILL_SLACK
from splitbus_schemas.messages import Plan, ProfileRequest

SPLIT = Split(("device", "edge1"), (Cut(5, "t6"),))
OTHER = Split(("device", "cloud1"), (Cut(5, "t6"),))


class Slices:
    """Names for slices."""

    def slice_id(self, model: str, first: int, last: int, codec_in: str, codec_out: str) -> str:
        return f"{first:02}{last:02}{len(codec_in)}{len(codec_out)}".ljust(64, "0") if model else ""

    def profile_request(self, model: str) -> ProfileRequest:
        raise NotImplementedError(model)


def facts() -> ModelFacts:
    """The model by hand, with three strengths in place of its codecs but one."""
    made = given.facts()
    codecs = ("zstd", "t6", "t9", "t12")
    sizes = np.array(given.BYTES)[:, :1] * [0.9, 0.2, 0.1, 0.05]
    lossless = np.broadcast_to([True, False, False, False], (3, 4))
    codings = replace(
        made.codings,
        codecs=codecs,
        coded_bytes=sizes,
        encode_ms=np.zeros((3, 4)),
        decode_ms=np.zeros((3, 4)),
        agreement=np.ones((3, 4)),
        lossless=lossless,
    )
    return replace(made, codings=codings)


def problem(temporal: Sequence[str], world: World | None = None) -> Problem:
    found = build_problem(world or given.world(), facts(), "device", 0.0, Limits(), {})
    workers = tuple(replace(w, temporal=w.node in temporal) for w in found.workers)
    return replace(found, workers=workers)


def planned(found: Problem, split: Split, *others: Split, slack: float | None = SLACK) -> Plan:
    def priced(way: Split) -> Priced:
        return price(found, way)

    return draft(Slices(), facts(), found, priced(split), [priced(o) for o in others], "the test says so", slack)


def slack_of(plan: Plan) -> float | None:
    assert plan.head is not None
    return plan.head.slack


def test_coefficients_are_told_as_differences_where_all_workers_hold_references() -> None:
    assert slack_of(planned(problem(["edge1", "cloud1"]), SPLIT, OTHER)) == SLACK
    assert slack_of(planned(problem(["edge1"]), SPLIT)) == SLACK
    assert slack_of(planned(problem(["edge1"]), SPLIT, OTHER)) is None
    assert slack_of(planned(problem(["edge1"]), SPLIT, slack=None)) is None
    lossless = Split(("device", "edge1"), (Cut(5, "zstd"),))
    assert slack_of(planned(problem(["edge1", "cloud1"]), lossless)) is None


def test_only_the_first_worker_of_a_route_needs_to_hold_them() -> None:
    both = Split(("device", "edge1", "cloud1"), (Cut(2, "t6"), Cut(5, "t6")))
    assert slack_of(planned(problem(["edge1"]), both)) == SLACK
    assert slack_of(planned(problem(["cloud1"]), both)) is None
    plan = planned(problem(["edge1"]), both)
    assert [stage.slack for stage in plan.routes[0]] == [None, None]


def test_what_one_strength_saves_is_expected_of_all() -> None:
    world = given.world()
    plain = problem([], world).codings.coded_bytes
    stream = world.streams[("device", facts().key)] = StreamView()
    stream.measured[5, "t6"] = plain[2, 1] / 4
    learned = problem([], world).codings.coded_bytes
    np.testing.assert_allclose(learned[:, 1:], plain[:, 1:] / 4)
    np.testing.assert_array_equal(learned[:, 0], plain[:, 0])


@pytest.mark.parametrize(
    ("settings", "slack"),
    [
        ({}, 0.5),
        ({"temporal": "calm"}, SLACK),
        ({"temporal": "still"}, STILL_SLACK),
        ({"temporal": "exact"}, 0.5),
        ({"temporal": "off"}, None),
    ],
)
def test_settings(settings: dict[str, object], slack: float | None) -> None:
    assert stream_settings(PlannerSettings.model_validate(settings)).slack == slack
