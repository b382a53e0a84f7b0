"""The stream is smooth, repeatable, in bounds and cheap, and shows the model what it knows."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from splitbus_demo import efficientnet, pictures
from splitbus_demo.inputs import preprocess
from splitbus_demo.pictures import SHOTS, PictureStream, Window
from splitbus_schemas.errors import ConfigError

COFFEE_CUP, EGYPTIAN_CAT, HELMET, MISSILE, MOPED = 967, 285, 560, 657, 665


def test_frames_are_repeatable_and_seeded() -> None:
    again = PictureStream()
    for index in (0, 7, 41, 10_000):
        np.testing.assert_array_equal(PictureStream().frame(index), again.frame(index))
    assert not np.array_equal(PictureStream(seed=1).frame(0), again.frame(0))


def test_frames_have_the_size_asked_for() -> None:
    frame = PictureStream().frame(3, height=96, width=160)
    assert (frame.shape, frame.dtype.name) == ((96, 160, 3), "uint8")


def test_the_camera_moves_a_little_each_frame_and_cuts_between_photographs() -> None:
    stream = PictureStream(frames_per_shot=40)
    frames = [stream.frame(index).astype(float) for index in range(160)]
    steps = np.array([np.abs(a - b).mean() for a, b in pairwise(frames)])
    jumps = np.isin(np.arange(1, 160), (40, 80, 120))
    assert steps[jumps].min() > 40
    assert steps[~jumps].max() < 30
    assert np.mean(steps > 0) > 0.95


@pytest.mark.parametrize("shot", SHOTS)
def test_every_window_lies_inside_its_photograph(shot: pictures.Shot) -> None:
    width, height = pictures._photograph(shot.photograph).size
    for window in (shot.start, shot.end):
        assert min(window.x, window.y) >= 0
        assert window.x + window.side <= width
        assert window.y + window.side <= height


@given(st.floats(0, 1))
def test_a_window_stays_between_its_ends(share: float) -> None:
    window = Window(0, 10, 100).towards(Window(20, 0, 50), pictures.ease(share))
    assert 0 <= window.x <= 20
    assert 0 <= window.y <= 10
    assert 50 <= window.side <= 100


def test_a_frame_costs_less_than_three_milliseconds() -> None:
    stream = PictureStream()
    for shot in range(len(SHOTS)):
        stream.frame(shot * pictures.FRAMES_PER_SHOT)  # the photographs are read once

    def cost(index: int) -> float:
        started = time.perf_counter()
        preprocess(stream.frame(index))
        return time.perf_counter() - started

    assert np.median([cost(index) for index in range(0, 360, 3)]) < 3e-3


def test_the_model_is_sure_of_what_it_sees(tmp_path: Path) -> None:
    model = efficientnet.build(tmp_path / "model.onnx")
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    stream = PictureStream()
    logits = [session.run(None, {"input": preprocess(stream.frame(index))})[0][0] for index in range(0, 360, 9)]
    assert {COFFEE_CUP, EGYPTIAN_CAT, HELMET, MISSILE, MOPED} <= {int(np.argmax(row)) for row in logits}
    margins = [float(np.subtract(*np.sort(row)[[-1, -2]])) for row in logits]
    assert np.mean(np.array(margins) > 0.3) >= 0.95


def test_a_photograph_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"photograph nobody\.png is not installed"):
        pictures._photograph("nobody.png")


def test_the_frame_is_the_photographs_own_pixels_when_nothing_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    still = pictures.Shot("chelsea.png", Window(30, 20, 200), Window(30, 20, 200))
    monkeypatch.setattr(pictures, "SHOTS", (still,))
    photograph = np.asarray(pictures._photograph("chelsea.png"))
    frame = PictureStream().frame(5, height=200, width=200)
    np.testing.assert_array_equal(frame, photograph[20:220, 30:230])
    assert isinstance(Image.fromarray(frame), Image.Image)
