"""Block times: they sum to the whole, for any model, and a block that fails is named."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from tests.worker.slices import MODEL, SmallSlice, make_slice

from splitbus_runtime.profiler import profile, sample
from splitbus_runtime.shelf import Shelf
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import BlobError
from splitbus_schemas.messages import ProfileRequest, TensorSpec

SIZE = 128
WEIGHT = {"w": (np.eye(SIZE) * 0.5).astype(np.float32)}


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


def test_slowdown_shows_in_the_profile(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(0, 8)], chain(0, 8))

    def whole_ms(slowdown: float) -> float:
        shelf = Shelf(store, lambda _sha: None, threads=1, slowdown=slowdown)
        return profile(request, shelf, node="w1", boot="b1", stopping=lambda: False).whole_ms

    assert whole_ms(20.0) > 5 * whole_ms(1.0)


def test_it_ends_when_the_node_stops(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(0, 1)], chain(0, 1))
    result = profile(request, Shelf(store, lambda _sha: None), node="w1", boot="b1", stopping=lambda: True)
    assert result.whole_ms == 0


def test_a_block_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    request = request_for(store, [chain(0, 1)], chain(0, 1)).model_copy(update={"blocks": ["ab" * 32]})
    with pytest.raises(BlobError, match="ab" * 6):
        profile(request, Shelf(store, lambda _sha: None), node="w1", boot="b1", stopping=lambda: False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int64", "bool"])
def test_a_sample_has_the_type_and_shape(dtype: str) -> None:
    array = sample(TensorSpec(name="x", dtype=dtype, shape=[None, 3]))
    assert (array.dtype.name, array.shape) == (dtype, (1, 3))
