"""Block times: they sum to the whole, for any model, and a block that fails is named."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from tests.worker.slices import MODEL, SmallSlice, make_slice

from splitbus_runtime.profiler import PASSES, READINGS_A_PASS, Stopwatch, Told, profile, sample
from splitbus_runtime.shelf import Shelf
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import BlobError, SplitbusError
from splitbus_schemas.messages import Anchor, NodeProfile, ProfileRequest, TensorSpec

SIZE = 128
WEIGHT = {"w": (np.eye(SIZE) * 0.5).astype(np.float32)}
LARGE = 1024
HEAVY = {"w": (np.eye(LARGE) * 0.5).astype(np.float32)}


def chain(first: int, last: int) -> SmallSlice:
    """Products first..last of a chain t0 -> t1 -> ... of matrix products, block i having i of them."""
    nodes = []
    for block in range(first, last):
        names = [f"t{block}", *(f"t{block}_{i}" for i in range(block)), f"t{block + 1}"]
        nodes += [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)]
    return make_slice(
        nodes,
        inputs={f"t{first}": [None, SIZE]},
        outputs={f"t{last}": [None, SIZE]},
        weights=WEIGHT,
        span=(first, last),
    )


def steps(first: int, products: list[int], last: int | None = None) -> SmallSlice:
    """Blocks first..last of a chain, block i being products[i] matrix products in a row."""
    end = first + 1 if last is None else last
    nodes = []
    for block in range(first, end):
        names = [f"t{block}", *(f"t{block}_{i}" for i in range(products[block] - 1)), f"t{block + 1}"]
        nodes += [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)]
    return make_slice(
        nodes, inputs={f"t{first}": [None, LARGE]}, outputs={f"t{end}": [None, LARGE]}, weights=HEAVY, span=(first, end)
    )


def request_for(store: BlobStore, blocks: list[SmallSlice], whole: SmallSlice) -> ProfileRequest:
    for piece in (*blocks, whole):
        piece.put(store)
    return ProfileRequest(
        model=MODEL, cuts=list(range(1, len(blocks) + 1)), blocks=[b.id for b in blocks], whole=whole.id
    )


def test_blocks_sum_to_the_whole(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(i, i + 1) for i in range(4)], chain(0, 4))
    shelf = Shelf(store, lambda _sha: None, threads=1)
    result = profile(request, shelf, node="w1", boot="b1", stopping=lambda: False)
    assert sum(result.block_ms) == pytest.approx(result.whole_ms, rel=0.01, abs=0.001)
    assert (result.node, result.model, result.cuts) == ("w1", MODEL, [1, 2, 3, 4])
    assert len(result.spread_ms) == 4
    assert result.whole_ms > 0
    assert all(value >= 0 for value in (*result.block_ms, *result.spread_ms))
    assert shelf.ready == [], "profiling keeps nothing warm"


@pytest.mark.parametrize(("early_s", "count"), [(0.0, 1), (60.0, 0)])
def test_what_a_long_first_pass_found_is_told_before_the_rest(tmp_path: Path, early_s: float, count: int) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(i, i + 1) for i in range(4)], chain(0, 4))
    request = request.model_copy(update={"batches": [1, 4], "round": 3})
    told: list[NodeProfile] = []
    shelf = Shelf(store, lambda _sha: None, threads=1)
    result = profile(request, shelf, node="w1", boot="b1", early=told.append, early_s=early_s)
    assert len(told) == count
    assert [times.batch for times in result.batches] == [4]
    for early in told:
        assert sum(early.block_ms) == pytest.approx(early.whole_ms, rel=0.01, abs=0.001)
        assert (early.cuts, early.round, early.batches) == (result.cuts, 3, [])
        assert 0 < early.runs < result.runs


def test_slowdown_shows_in_the_profile(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(0, 8)], chain(0, 8))

    def whole_ms(slowdown: float) -> float:
        shelf = Shelf(store, lambda _sha: None, threads=1, slowdown=slowdown)
        return profile(request, shelf, node="w1", boot="b1", stopping=lambda: False).whole_ms

    assert whole_ms(20.0) > 5 * whole_ms(1.0)


def test_it_ends_at_once_when_the_node_stops(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(0, 1)], chain(0, 1))
    with pytest.raises(SplitbusError, match="given up"):
        profile(request, Shelf(store, lambda _sha: None), node="w1", boot="b1", stopping=lambda: True)


def test_anchors_are_timed_and_put_the_blocks_right(tmp_path: Path) -> None:
    """Blocks of 1, 4, 9 and 16 products: what is elapsed at each cut is that share of the whole."""
    store = BlobStore(tmp_path)
    products = [1, 4, 9, 16]
    request = request_for(store, [steps(i, products) for i in range(4)], steps(0, products, 4))
    head, tail = steps(0, products, 2), steps(2, products, 4)
    for piece in (head, tail):
        piece.put(store)
    request = request.model_copy(update={"anchors": [Anchor(cut=2, head=head.id, tail=tail.id)], "round": 3})
    told: list[Told] = []
    result = profile(
        request, Shelf(store, lambda _sha: None, threads=1), node="w1", boot="b1", stopwatch=Stopwatch(1),
        progress=told.append,
    )  # fmt: skip
    assert result.round == 3
    assert result.runs == PASSES * READINGS_A_PASS
    assert told[-1].done == told[-1].total == PASSES * 6
    shares = np.cumsum(result.block_ms) / result.whole_ms
    assert shares == pytest.approx(np.cumsum(products) / sum(products), abs=0.12)


def test_a_profile_keeps_to_its_time_and_says_what_it_could(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(i, i + 1) for i in range(4)], chain(0, 4))
    request = request.model_copy(
        update={"anchors": [Anchor(cut=2, head=request.blocks[0], tail=request.blocks[0])], "batches": [1, 8]}
    )
    result = profile(request, Shelf(store, lambda _sha: None, threads=1), node="w1", boot="b1", budget_s=0.0)
    assert (result.runs, result.batches) == (READINGS_A_PASS, [])
    assert sum(result.block_ms) == pytest.approx(result.whole_ms, rel=0.01, abs=0.001)


def test_larger_batches_are_timed_where_the_batch_is_free(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(i, i + 1) for i in range(4)], chain(0, 4))
    request = request.model_copy(update={"batches": [1, 32]})
    result = profile(request, Shelf(store, lambda _sha: None, threads=1), node="w1", boot="b1", stopwatch=Stopwatch(1))
    (many,) = result.batches
    assert many.batch == 32
    assert sum(many.block_ms) == pytest.approx(many.whole_ms, rel=0.01, abs=0.001)
    assert result.whole_ms < many.whole_ms < 32 * result.whole_ms


def test_a_model_of_a_fixed_batch_runs_once_for_each_frame(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    fixed = make_slice(
        [helper.make_node("MatMul", ["t0", "w"], ["t1"])],
        inputs={"t0": [1, SIZE]}, outputs={"t1": [1, SIZE]}, weights=WEIGHT,
    )  # fmt: skip
    request = request_for(store, [fixed], fixed).model_copy(update={"batches": [4]})
    result = profile(request, Shelf(store, lambda _sha: None, threads=1), node="w1", boot="b1")
    assert result.batches[0].whole_ms == pytest.approx(4 * result.whole_ms, rel=0.01, abs=0.001)


def test_other_programs_do_not_show_in_a_profile_of_one_thread() -> None:
    """The clock stands while the thread waits, and runs as much faster as the machine is made slower."""

    def wait_and_work() -> None:
        time.sleep(0.05)
        sum(range(10_000))

    alone, slowed = (Stopwatch(1, slowdown).time(wait_and_work) for slowdown in (1.0, 10.0))
    assert alone < 0.02
    assert slowed > 2 * alone
    assert Stopwatch(2).time(wait_and_work) > 0.05


def test_a_block_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(0, 1)], chain(0, 1)).model_copy(update={"blocks": ["ab" * 32]})
    with pytest.raises(BlobError, match="ab" * 6):
        profile(request, Shelf(store, lambda _sha: None), node="w1", boot="b1", stopping=lambda: False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int64", "bool"])
def test_a_sample_has_the_type_and_shape(dtype: str) -> None:
    array = sample(TensorSpec(name="x", dtype=dtype, shape=[None, 3]))
    assert (array.dtype.name, array.shape) == (dtype, (1, 3))
