"""The demo's trained model, made to take frames, gives the stored reference's logits for a photograph's bytes."""

from __future__ import annotations

from fractions import Fraction
from importlib import resources
from pathlib import Path

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
from PIL import Image
from tests.demo.test_efficientnet import LOGITS

from splitbus_demo import efficientnet
from splitbus_gateway.graph.images import ImageInput, write_frames_model


def test_a_photographs_bytes_give_the_references_logits(tmp_path: Path) -> None:
    floats = efficientnet.build(tmp_path / "efficientnet_lite0.onnx")
    image = ImageInput(efficientnet.INPUT, mean=(127.0,), std=(128.0,), scale=Fraction(1))
    (tmp_path / "frames").mkdir()
    frames = write_frames_model(floats, image, tmp_path / "frames")
    with resources.files("skimage").joinpath("data", "chelsea.png").open("rb") as file:
        pixels = np.asarray(Image.open(file))[40:264, 150:374]
    session = ort.InferenceSession(frames, providers=["CPUExecutionProvider"])
    (logits,) = session.run([efficientnet.OUTPUT], {efficientnet.INPUT: np.ascontiguousarray(pixels)[None]})
    with np.load(LOGITS) as stored:
        np.testing.assert_allclose(logits, stored["chelsea"], rtol=0, atol=1e-5)
