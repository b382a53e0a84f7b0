"""What sending doubtful frames again keeps and takes, from what sending each once gave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.planning import codings, node, three_tiers
from tests.gateway.test_transformed import network, pictures
from tests.models import save

from splitbus_gateway.agreement import agreement
from splitbus_gateway.drafts import draft
from splitbus_gateway.facts import corrected
from splitbus_gateway.judging import BY_ANSWERS, Judge
from splitbus_gateway.measures import Measure
from splitbus_gateway.planner import alternates, plan
from splitbus_gateway.pricing import DOUBT, price
from splitbus_gateway.problem import Cut, Limits, LinkFacts, Pinned, Problem, SecondLook, Split
from splitbus_gateway.records import ModelRecord
from splitbus_gateway.registry import Registry
from splitbus_gateway.second_look import SHARE, Looked, Sent, look_again
from splitbus_gateway.slicing import SliceBook
from splitbus_gateway.state import Doubted, StreamView
from splitbus_schemas.codecs import CODECS, TWICE
from splitbus_schemas.errors import UnsatisfiableError

COUNT, CLASSES = 50, 10
RIGHT = [{"y": row[None]} for row in np.random.default_rng(5).standard_normal((COUNT, CLASSES))]


def sent(noise: float, seed: int = 1, size: float = 100.0) -> Sent:
    """Answers under noise; `size` bytes and one more for each sample."""
    rng = np.random.default_rng(seed)
    answers = [{"y": answer["y"] + noise * rng.standard_normal((1, CLASSES))} for answer in RIGHT]
    return Sent(size + np.arange(COUNT, dtype=np.float64), 2.0, 1.0, answers)


def looked(first: Sent, again: Sent, judge: Judge = BY_ANSWERS) -> Looked:
    found = look_again(first, again, RIGHT, ["y"], judge)
    assert found is not None
    return found


def leads(one: Sent) -> list[float]:
    return [float(np.diff(np.sort(answer["y"][0])[-2:])[0]) for answer in one.answers]


def kept(one: Sent) -> float:
    return agreement([answer["y"] for answer in RIGHT], [answer["y"] for answer in one.answers])


def test_the_fifth_with_the_smallest_leads_is_replaced() -> None:
    first, again = sent(0.3), sent(0.05, seed=2, size=1000.0)
    found = looked(first, again)
    assert found.share == SHARE
    doubtful = np.array(leads(first)) < found.below
    assert doubtful.sum() == COUNT * SHARE
    for place, answer in enumerate(found.sent.answers):
        assert answer is (again if doubtful[place] else first).answers[place]
    np.testing.assert_allclose(found.sent.sizes, first.sizes + np.where(doubtful, again.sizes, 0.0))
    assert (found.sent.encode_ms, found.sent.decode_ms) == pytest.approx((2.0 * 1.2, 1.2))


def test_it_keeps_more_than_the_first_alone_in_fewer_bytes_than_the_second() -> None:
    first, again = sent(0.3), sent(0.05, seed=2, size=1000.0)
    found = looked(first, again)
    assert kept(first) < 0.9 < found.verdict.agreement <= kept(again) + 0.02
    assert found.sent.sizes.mean() < 0.4 * again.sizes.mean()


@given(st.floats(0, 2), st.floats(0, 2), st.integers(0, 1000))
def test_agreement_is_a_share_and_never_above_what_was_seen(one: float, two: float, seed: int) -> None:
    found = look_again(sent(one, seed), sent(two, seed + 1), RIGHT, ["y"], BY_ANSWERS)
    assert found is not None
    same = [a["y"].argmax() == b["y"].argmax() for a, b in zip(RIGHT, found.sent.answers, strict=True)]
    assert 0.0 <= found.verdict.agreement <= np.mean(same) + 1e-12
    assert 0 < found.share <= SHARE


def test_accuracy_is_that_of_the_answers_that_stand() -> None:
    labels = tuple(int(answer["y"].argmax()) for answer in RIGHT[:40]) + (0,) * 10
    found = looked(sent(0.3), sent(0.05, seed=2), Judge(labels))
    best = [int(answer["y"].argmax()) for answer in found.sent.answers]
    assert found.verdict.accuracy == pytest.approx(np.mean(np.equal(best, labels)))


def test_an_owners_measure_judges_as_well() -> None:
    found = looked(sent(0.3), sent(0.05), Judge(measure=Measure("never", lambda _a, _b: False)))
    assert found.verdict.agreement == 0.0


def unscored(value: Any) -> list[dict[str, Any]]:
    return [{"y": np.asarray(value)} for _ in range(COUNT)]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(unscored(np.ones((1, 4, 4))), id="boxes"),
        pytest.param(unscored(np.ones((1, 4), np.int64)), id="whole numbers"),
        pytest.param(unscored(np.ones((1, 4))), id="no lead stands out"),
        pytest.param(unscored(np.full((1, 4), np.nan)), id="not a number"),
        pytest.param([], id="no sample"),
    ],
)
def test_without_a_lead_that_tells_frames_apart_all_are_sent_once(answers: list[dict[str, Any]]) -> None:
    first = replace(sent(0.3), answers=answers, sizes=np.ones(len(answers)))
    assert look_again(first, first, answers, ["y"], BY_ANSWERS) is None


# In the table -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("second-look")
    made = Registry(folder / "state", max_input_ratio=4.0)
    made.add("net", save(network(), folder), calibrate=pictures(48))
    return made


@pytest.fixture(scope="module")
def record(registry: Registry) -> ModelRecord:
    return registry.get("net")


def test_every_cut_with_coefficients_has_what_sending_again_takes(record: ModelRecord) -> None:
    """Bytes are those of both times: between the first strength's and the sum of both strengths'."""
    found = {(size.cut, size.codec): size for size in record.sizes}
    again = [size for size in record.sizes if size.codec in TWICE]
    assert {size.codec for size in again} == set(TWICE)
    for size in again:
        first, finer = (found[size.cut, name] for name in TWICE[size.codec])
        assert size.again == pytest.approx(SHARE, abs=1 / record.sample_count)
        assert (size.below or 0.0) > 0.0
        assert first.bytes_a_frame + 0.15 * finer.bytes_a_frame < size.bytes_a_frame
        assert size.bytes_a_frame < first.bytes_a_frame + 0.35 * finer.bytes_a_frame
        assert size.encode_ms > first.encode_ms


def test_the_planner_is_told_what_goes_out_at_first_and_again(record: ModelRecord) -> None:
    found = {(size.cut, size.codec): size for size in record.sizes}
    table = record.facts().codings
    assert table.second is not None
    for row, cut in enumerate(table.cuts[:-1]):
        for column, codec in enumerate(table.codecs):
            size, share = found.get((cut, codec)), table.second.share[row, column]
            assert share == ((size.again if size else None) or 0.0)
            if size and share:
                first, finer = (found[cut, name] for name in TWICE[codec])
                assert table.coded_bytes[row, column] == first.p50_bytes
                assert table.second.coded_bytes[row, column] == finer.p50_bytes
                assert (table.agreement[row, column], table.second.below[row, column]) == (size.agreement, size.below)


def test_where_answers_have_no_scores_no_frame_is_sent_again(tmp_path: Path) -> None:
    proto = network()
    proto.graph.node[-1].output[0] = "flat"
    proto.graph.node.append(type(proto.graph.node[0])(op_type="Unsqueeze", input=["flat", "axes"], output=["y"]))
    proto.graph.initializer.add(name="axes", data_type=7, dims=[1], int64_data=[0])
    proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 10
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    made = Registry(tmp_path / "state", max_input_ratio=4.0)
    made.add("boxes", save(proto, tmp_path), calibrate=pictures(40))
    facts = made.get("boxes").facts()
    assert facts.codings.second is None
    assert not np.isfinite(facts.codings.coded_bytes[:, [CODECS[c].again != "" for c in facts.codings.codecs]]).any()


# In plans -----------------------------------------------------------------------------------------------------------


def asked_again(**more: Any) -> Problem:
    """Cut 7 under q8: a fifth of the frames are sent again, in 10 kB, at twice the work."""
    table = codings((0, 3, 7, 9), [[100e3, 25e3], [400e3, 100e3], [10e3, 2.5e3]])
    share = np.where(np.arange(6).reshape(3, 2) == 5, 0.2, 0.0)

    def where_again(value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.where(share > 0, value, np.nan)

    second = SecondLook(share, where_again(0.5), where_again(10e3), where_again(2.0), where_again(1.0))
    return three_tiers(codings=replace(table, second=second), **more)


EDGE = Split(("cam1", "edge1"), (Cut(7, "q8"),))


def test_a_way_by_hand() -> None:
    """Once: 60 + 10 + (1 + 0.5) + 0.5 + 4 + (1 + 0.4) ms; again, a fifth of the frames: 20 + (1 + 2) + 1 + 4 + 1.4."""
    way = price(asked_again(), EDGE)
    assert way.once_ms == pytest.approx(77.4)
    assert way.second.ms == pytest.approx(29.4)
    assert way.ms == pytest.approx(77.4 + 0.2 * 29.4)
    assert way.longest_ms == pytest.approx(77.4 + 29.4)
    assert way.up_bytes == 2500 + 0.2 * 10_000
    assert way.down_bytes == 1.2 * 4000
    assert way.device_ms == pytest.approx(60 + 10 + 0.2 * 20)
    assert way.interval_ms == pytest.approx(way.device_ms)
    assert sum(step.ms for step in way.steps) == pytest.approx(way.ms)
    assert [(step.what, step.where) for step in way.steps][-2:] == [("other", DOUBT), ("link", "edge1>cam1")]


def test_a_deadline_holds_for_both_trips() -> None:
    free = asked_again(links={("cam1", "edge1"): LinkFacts(rtt_ms=2.0, up_mbit=2.5, down_mbit=80.0)})
    chosen = plan(free).best
    assert chosen.split == EDGE
    late = replace(free, limits=Limits(deadline_ms=chosen.longest_ms - 1))
    assert plan(late).best.split != EDGE
    assert plan(replace(free, limits=Limits(deadline_ms=chosen.longest_ms))).best.split == EDGE


def test_one_worker_alone_is_asked_again() -> None:
    two = Split(("cam1", "edge1", "cloud1"), (Cut(3, "raw"), Cut(7, "q8")))
    with pytest.raises(UnsatisfiableError, match="one worker alone"):
        price(asked_again(), two)
    with pytest.raises(UnsatisfiableError, match="one worker alone"):
        plan(asked_again(pin=Pinned(two.cuts)))
    assert {way.split.nodes for way in alternates(asked_again(), EDGE)} == {("cam1", "cloud1")}


def test_a_packet_that_a_node_does_not_take_again_rules_the_way_out() -> None:
    small = replace(node("edge1", "edge", [0, 2, 6, 10]), max_packet_bytes=9000)
    with pytest.raises(UnsatisfiableError, match="10000 bytes, edge1 takes 9000"):
        price(asked_again(workers=(small,)), EDGE)


def test_a_plan_tells_the_camera_when_and_how(registry: Registry, record: ModelRecord) -> None:
    """WIRE-82: what the second coding is, and below which lead; nothing for codecs that send once."""
    facts = record.facts()
    cut = next(size.cut for size in record.sizes if size.codec == "t9+t5")
    times = np.linspace(0, 10, len(facts.codings.cuts)).tolist()
    known = frozenset(facts.codings.codecs)
    problem = three_tiers(
        codings=facts.codings,
        device=replace(node("cam1", "device", times), codecs=known),
        workers=(replace(node("edge1", "edge", times), codecs=known),),
        memory_mb=None,
    )
    told = {}
    for codec in ("t9+t5", "t9", "zstd"):
        way = price(problem, Split(("cam1", "edge1"), (Cut(cut, codec),)))
        made = draft(SliceBook(registry), facts, problem, way, (), "the test says so")
        assert made.head is not None
        told[codec] = made.head
    again = told["t9+t5"].again
    assert again is not None
    below = next(size.below for size in record.sizes if (size.cut, size.codec) == (cut, "t9+t5"))
    assert (told["t9+t5"].coding, again.coding, again.below) == ("t9", "t5", below)
    assert told["t9"].again is None
    assert told["zstd"].again is None
    assert told["t9"].slice == told["t9+t5"].slice, "another strength needs no other slice"


# As frames have it --------------------------------------------------------------------------------------------------


def test_a_streams_own_frames_say_how_often() -> None:
    doubted = Doubted()
    assert doubted.share(0.2) == pytest.approx(0.2)
    for _ in range(120):
        doubted = doubted.after(10, 5)
    assert doubted.share(0.2) == pytest.approx(0.5, abs=0.05)
    for _ in range(120):
        doubted = doubted.after(10, 0)
    assert doubted.share(0.2) < 0.08


def test_what_is_sent_again_stands_alone_however_small_frames_at_first_are(record: ModelRecord) -> None:
    table = record.facts().codings
    assert table.second is not None
    cut = next(size.cut for size in record.sizes if size.codec == "t9+t5")
    cell = table.cuts.index(cut), table.codecs.index("t9+t5")
    for factor, expected in ((0.1, 1.0), (3.0, 3.0)):
        stream = StreamView(measured={(cut, "t9+t5"): factor * float(table.coded_bytes[cell])})
        stream.doubted[cut, "t9+t5"] = Doubted(500, 250)
        now = corrected(table, stream)
        assert now.second is not None
        assert now.coded_bytes[cell] == pytest.approx(factor * table.coded_bytes[cell])
        assert now.second.coded_bytes[cell] == pytest.approx(expected * table.second.coded_bytes[cell])
        assert 0.4 < now.second.share[cell] < 0.5
