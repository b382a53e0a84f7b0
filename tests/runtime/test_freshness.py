"""Which readings move a block: its own, in a row, and never what slows the whole node down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime import freshness
from splitbus_runtime.freshness import MARGIN, READINGS, SHARE, STALE_S, Blocks, Rhythm, last_uses, rest_s
from splitbus_schemas.ids import sha256
from splitbus_schemas.messages import BatchTimes, NodeProfile, ProfileRequest

MODEL = sha256(b"a model")

times = st.floats(0.05, 100.0)
paces = st.floats(0.2, 20.0)
profiles = st.lists(times, min_size=2, max_size=8)


def known(block_ms: list[float], *, spread: float = 0.0, local: bool = False) -> Blocks:
    """A model's blocks, each of which took a fifth more alone."""
    count, whole = len(block_ms), sum(block_ms)
    names = [sha256(bytes([place])) for place in range(count)]
    request = ProfileRequest(model=MODEL, cuts=list(range(1, count + 1)), blocks=names, whole=sha256(b"whole"))
    profile = NodeProfile(
        node="w1", boot="b1", model=MODEL, cuts=request.cuts, block_ms=block_ms, spread_ms=[spread] * count,
        whole_ms=whole, local_ms=1.5 * whole if local else None, runs=6, round=3,
        batches=[BatchTimes(batch=4, block_ms=[3 * ms for ms in block_ms], whole_ms=3 * whole)],
    )  # fmt: skip
    return Blocks.of(request, profile, {name: 1.2 * ms for name, ms in zip(names, block_ms, strict=True)}, 0.0)


@given(profiles, paces, st.data())
def test_a_node_that_is_slower_as_a_whole_moves_no_block(
    block_ms: list[float], pace: float, data: st.DataObject
) -> None:
    blocks = known(block_ms)
    place = data.draw(st.integers(0, len(block_ms) - 1))
    found = blocks.inside(place, blocks.blocks[place].alone_ms * pace, pace)
    fresh, moved = blocks.read(place, [found] * READINGS, 100.0)
    assert not moved
    assert fresh.profile == blocks.profile
    assert not fresh.stale(place, 100.0 + STALE_S / 2)
    assert fresh.stale(place, 100.0 + STALE_S)


@given(profiles, st.floats(2.0, 9.0))
def test_a_block_that_moved_alone_is_told(block_ms: list[float], slower: float) -> None:
    """WIRE-80"""
    blocks = known(block_ms, local=True)
    place = max(range(len(block_ms)), key=block_ms.__getitem__)
    found = [blocks.inside(place, blocks.blocks[place].alone_ms * slower, 1.0)] * READINGS
    fresh, moved = blocks.read(place, found, 1.0)
    before, after = blocks.profile, fresh.profile
    assert moved
    assert abs(after.block_ms[place] - (1 + 1.2 * (slower - 1)) * block_ms[place]) < 1e-3
    assert [ms for i, ms in enumerate(after.block_ms) if i != place] == [
        ms for i, ms in enumerate(block_ms) if i != place
    ]
    assert abs(after.whole_ms - sum(after.block_ms)) < 1e-3
    assert before.local_ms is not None
    assert after.local_ms is not None
    assert abs(after.local_ms / after.whole_ms - before.local_ms / before.whole_ms) < 1e-2
    assert abs(after.batches[0].whole_ms - sum(after.batches[0].block_ms)) < 1e-3
    assert (after.round, after.cuts, after.boot) == (before.round, before.cuts, before.boot)
    again, moved = fresh.read(place, found, 2.0)
    assert not moved, "what was told is what is believed from then on"
    assert again.profile == after


@given(profiles, st.lists(st.floats(0.0, 1000.0), max_size=READINGS - 1))
def test_one_reading_moves_nothing(block_ms: list[float], found: list[float]) -> None:
    assert not known(block_ms).read(0, found, 1.0)[1]


def test_readings_on_both_sides_and_within_the_spread_move_nothing() -> None:
    blocks = known([10.0, 10.0], spread=4.0)
    assert not blocks.read(0, [1.0, 19.0], 1.0)[1]
    assert not blocks.read(0, [17.0, 17.9], 1.0)[1]
    assert blocks.read(0, [18.5, 18.5], 1.0)[1]


def test_a_small_block_must_matter_to_the_whole() -> None:
    blocks = known([100.0, 0.1])
    assert not blocks.read(1, [1.0, 1.0], 1.0)[1]
    assert blocks.read(1, [2.0, 2.0], 1.0)[1]


def test_the_span_of_a_slice_is_that_of_whole_blocks() -> None:
    blocks = known([1.0, 2.0, 3.0])
    assert (blocks.span(0, 3), blocks.span(1, 2)) == (range(3), range(1, 2))
    assert (blocks.span(0, 7), len(blocks.span(2, 2))) == (range(0), 0)
    assert blocks.took(range(1, 3)) == 5.0


@given(st.floats(0.02, 2.0), st.integers(2, 30), st.floats(0.0, 1.0), st.floats(0.001, 3.0))
def test_a_run_is_over_before_the_next_frame(every: float, frames: int, share: float, run_s: float) -> None:
    rhythm = Rhythm()
    for frame in range(frames):
        rhythm = rhythm.with_frame(frame * every)
    now = (frames - 1 + share) * every
    if rhythm.has_room(now, run_s):
        assert now + run_s * MARGIN < frames * every + 1e-6
    assert rhythm.has_room((frames + 1.5) * every, run_s), "it stopped"


def test_a_pause_begins_a_new_rhythm() -> None:
    rhythm = Rhythm().with_frame(0.0).with_frame(0.1).with_frame(60.0)
    assert rhythm.every_s == float("inf")
    assert rhythm.has_room(60.0, 10.0)


@given(st.floats(0.0, 100.0))
def test_the_share_of_a_core_is_kept(spent: float) -> None:
    assert spent <= SHARE * (rest_s(spent) + 1e-9)
    assert rest_s(spent) >= freshness.LEAST_REST_S


def test_tensors_are_kept_until_their_last_use() -> None:
    assert last_uses([{"a"}, {"b", "a"}, {"c"}]) == {"a": 1, "b": 1, "c": 2}
