"""What is concluded from durations: steps are seen at once, jitter is not taken for one, nonsense changes nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.links import MAX_MBIT, MAX_RTT_S, RECENT, LinkEstimate, Series
from splitbus_schemas.messages import LinkReport

NOW = 1000.0
rates = st.floats(0.05, 1000)
any_float = st.floats(allow_nan=True, allow_infinity=True)


def with_rates(link: LinkEstimate, *mbit: float) -> LinkEstimate:
    for step, rate in enumerate(mbit):
        link = link.with_up(20_000, 20_000 * 8e-6 / rate, NOW + step, "traffic")
    return link


def known(series: Series) -> float:
    assert series.estimate is not None
    return series.estimate


@pytest.mark.parametrize(("factor", "needed"), [(0.2, 2), (5.0, 4)])
@given(rates, st.lists(st.floats(0.9, 1.1), min_size=14, max_size=14))
def test_a_fall_of_five_is_seen_after_two_samples_and_a_rise_after_four(
    factor: float, needed: int, before: float, jitter: list[float]
) -> None:
    link = with_rates(LinkEstimate(), *(before * j for j in jitter[:10]))
    assert known(link.up_mbit) == pytest.approx(before, rel=0.11)
    link = with_rates(link, *(before * factor * j for j in jitter[10 : 10 + needed]))
    assert known(link.up_mbit) == pytest.approx(before * factor, rel=0.11)


@given(rates, st.lists(st.floats(0.9, 1.1), min_size=12, max_size=12))
def test_three_trains_of_five_that_came_together_do_not_show(rate: float, jitter: list[float]) -> None:
    link = with_rates(LinkEstimate(), *(rate * j for j in jitter))
    assert known(with_rates(link, *[rate * 30] * 3).up_mbit) == pytest.approx(rate, rel=0.11)


@given(st.floats(1, 100), st.floats(0, 0.1), st.floats(2, 100))
def test_a_train_that_came_in_a_heap_is_known_by_its_round_trip(rate: float, rtt_s: float, factor: float) -> None:
    """Its receiver was late: the sender waited as long as ever."""
    size = 100_000
    up_s = size * 8e-6 / rate
    link = LinkEstimate()
    for step in range(9):
        heaped = up_s / (factor if step > 4 else 1)
        link = link.with_rtt(rtt_s, NOW + step, "traffic")
        link = link.with_up(size, heaped, NOW + step, "traffic", whole_s=rtt_s + up_s)
    assert known(link.up_mbit) <= 2.01 * rate


@given(st.floats(1, 100), st.floats(0, 0.1), st.floats(1, 100))
def test_a_link_that_rose_is_believed_though_its_round_trip_is_told(rate: float, rtt_s: float, factor: float) -> None:
    size, link = 100_000, LinkEstimate()
    for step in range(9):
        up_s = size * 8e-6 / rate / (factor if step > 4 else 1)
        link = link.with_rtt(rtt_s, NOW + step, "traffic")
        link = link.with_up(size, up_s, NOW + step, "traffic", whole_s=rtt_s + up_s)
    assert known(link.up_mbit) == pytest.approx(rate * factor)


@given(rates, st.lists(st.floats(0.9, 1.1), min_size=10, max_size=10), st.floats(0.001, 1000), st.integers(5, 9))
def test_one_outlier_never_shows(rate: float, jitter: list[float], outlier: float, place: int) -> None:
    samples = [rate * j for j in jitter]
    samples[place] = rate * outlier
    assert known(with_rates(LinkEstimate(), *samples).up_mbit) == pytest.approx(rate, rel=0.11)


@pytest.mark.parametrize(
    ("samples", "estimate", "kept"),
    [
        ([50, 50, 50, 50, 10], 50, 5),  # one low sample is no step
        ([50, 50, 50, 10, 50], 50, 4),  # and is forgotten when the next one gives it the lie
        ([50, 50, 50, 50, 10, 50, 10], 50, 5),
        ([50, 50, 50, 10, 12], 10, 2),  # two in a row are a step: what was before is no spread
        ([50, 50, 50, 10, 12, 11], 10, 3),
        ([10, 10, 10, 10, 10, 50, 50, 50], 10, 5),
        ([10, 10, 10, 10, 10, 50, 60, 50, 55], 50, 4),
    ],
)
def test_steps_and_outliers_by_hand(samples: list[float], estimate: float, kept: int) -> None:
    series = with_rates(LinkEstimate(), *samples).up_mbit
    assert known(series) == pytest.approx(estimate)
    assert len(series.values) == kept


def test_a_step_and_an_outlier_leave_confidence_as_it_was() -> None:
    steady = [50.0] * 9
    sure = [
        with_rates(LinkEstimate(), *steady, *last).with_rtt(0.01, NOW + 10, "traffic").confidence(NOW + 11)
        for last in ([50.0, 50.0], [50.0, 1.0], [10.0, 10.0])
    ]
    assert sure == pytest.approx([sure[0]] * 3)


def test_a_sample_after_a_long_silence_stands_alone() -> None:
    link = with_rates(LinkEstimate(), 50, 50, 50).with_up(20_000, 20_000 * 8e-6 / 5, NOW + 60, "traffic")
    assert known(link.up_mbit) == pytest.approx(5)


@given(st.lists(st.floats(1.0, 10.0), min_size=1, max_size=8), st.floats(11.0, 1e3))
def test_of_what_is_doubted_a_better_value_stands_alone_and_a_worse_one_is_one_among_others(
    values: list[float], better: float
) -> None:
    """A worker that was slow made its link look slow; one hiccup after it is well must not do so again."""
    slow = Series()
    for number, value in enumerate(values):
        slow = slow.add(value, number * 0.1)
    doubted = slow.doubted("low")
    assert doubted.estimate == slow.estimate
    assert doubted.add(better, 1.0).estimate == better
    assert doubted.add(better, 1.0).doubt == ""
    worse = min(values) / 2
    assert doubted.add(worse, 1.0).estimate == slow.add(worse, 1.0).estimate
    assert doubted.add(worse, 1.0).add(better, 1.1).estimate == better


def test_a_round_trip_that_is_doubted_was_too_long() -> None:
    doubted = Series().add(0.3, 0.0).add(0.32, 0.1).doubted("high")
    assert doubted.add(0.4, 0.2).estimate == Series().add(0.3, 0.0).add(0.32, 0.1).add(0.4, 0.2).estimate
    assert doubted.add(0.02, 0.2).estimate == 0.02


@given(st.floats(1.0, 100.0))
def test_a_hiccup_after_a_good_past_does_not_show(rate: float) -> None:
    doubted = Series()
    for number in range(RECENT):
        doubted = doubted.add(rate, number * 0.1)
    assert doubted.doubted("low").add(rate / 15, 1.0).estimate == rate


@given(rates, st.lists(st.floats(0.85, 1.15), min_size=1, max_size=20))
def test_the_estimate_is_the_second_lowest_of_the_latest(rate: float, jitter: list[float]) -> None:
    samples = [rate * j for j in jitter]
    link = with_rates(LinkEstimate(), *samples)
    latest = sorted(samples[-RECENT:])
    assert known(link.up_mbit) == pytest.approx(latest[(len(latest) - 1) // 3])
    assert link.up_mbit.count == len(samples)


@given(st.lists(st.tuples(st.sampled_from(["rtt", "up", "down"]), any_float, st.integers(-10, 10**12)), max_size=30))
def test_hostile_values_neither_raise_nor_stay(samples: list[tuple[str, float, int]]) -> None:
    link = LinkEstimate()
    for what, seconds, size in samples:
        match what:
            case "rtt":
                link = link.with_rtt(seconds, NOW, "traffic")
            case "up":
                link = link.with_up(size, seconds, NOW, "traffic")
            case _:
                link = link.with_down(size, seconds, NOW, "traffic")
    assert all(0 <= value <= MAX_RTT_S for value in link.rtt_s.values)
    assert all(0 <= value <= MAX_MBIT for value in (*link.up_mbit.values, *link.down_mbit.values))
    assert 0 <= link.confidence(NOW) <= 1
    report = link.report("a", "b", NOW)
    assert LinkReport.from_json(report.to_json()) == report


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, MAX_RTT_S + 1])
def test_an_impossible_round_trip_is_ignored(seconds: float) -> None:
    assert LinkEstimate().with_rtt(seconds, NOW, "probe") == LinkEstimate()


def test_confidence_grows_with_samples_and_fades_with_age() -> None:
    link = LinkEstimate()
    assert link.confidence(NOW) == 0
    seen = []
    for step in range(6):
        link = link.with_rtt(0.01, NOW, "traffic").with_up(20_000, 0.01, NOW, "traffic")
        seen.append(link.confidence(NOW + step * 0.0))
    assert seen == sorted(seen)
    assert seen[-1] > 0.7
    assert link.confidence(NOW + 20) == pytest.approx(seen[-1] / 2)
    assert link.confidence(NOW + 600) < 0.01


def test_a_link_without_round_trips_or_rates_is_not_known() -> None:
    assert with_rates(LinkEstimate(), 1, 2, 3).confidence(NOW) == 0
    assert LinkEstimate().with_rtt(0.1, NOW, "probe").confidence(NOW) == 0


@given(st.lists(st.booleans(), max_size=400))
def test_loss_is_a_share(outcomes: list[bool]) -> None:
    link = LinkEstimate()
    for lost in outcomes:
        link = link.with_outcome(lost=lost)
    loss = link.report("a", "b", NOW).loss
    assert 0 <= loss <= 1
    assert (loss > 0) >= any(outcomes[-20:])


def test_an_old_loss_is_forgotten() -> None:
    link = LinkEstimate()
    for turn in range(600):
        link = link.with_outcome(lost=turn < 30)
    assert link.report("a", "b", NOW).loss < 0.05


def test_the_age_is_that_of_the_newest_and_probes_follow_the_oldest() -> None:
    link = LinkEstimate()
    assert link.age(NOW) == math.inf
    link = link.with_up(20_000, 0.1, NOW, "traffic").with_rtt(0.1, NOW + 5, "traffic")
    assert link.oldest_age(NOW + 6) == math.inf, "the way back was never measured"
    link = link.with_down(20_000, 0.1, NOW + 5, "traffic")
    link = link.with_down(20_000, 0.1, NOW + 5, "traffic")
    assert link.age(NOW + 6) == 1
    assert link.oldest_age(NOW + 6) == 6
