"""A camera that sends its frames as JPEG: the model was declared to take pictures, and the plan says what travels."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.brokers import BrokerFactory
from tests.e2e.camera import ask
from tests.e2e.picture_model import one_thread, picture
from tests.e2e.site import CAMERA, EDGE, MODEL, POOR, Site, serving, wait_for

from splitbus_device import InferenceSession
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.ids import model_key
from splitbus_schemas.packet import pack_tensor, unpack_tensor

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float32]


def frame(index: int) -> Pixels:
    """What a camera sees of `picture(index)`, which is what the model is given of it."""
    return np.ascontiguousarray(np.moveaxis(np.rint(picture(index) * 128 + 128), 1, -1), np.uint8)


class Expected:
    """The float model as its file is, run by onnxruntime on frames that were prepared by hand."""

    def __init__(self, path: Path) -> None:
        self._session = ort.InferenceSession(path, one_thread(), providers=["CPUExecutionProvider"])

    def scores(self, pixels: Pixels) -> Scores:
        prepared = np.moveaxis((pixels.astype(np.float32) - 128) / 128, -1, 1)
        return np.asarray(self._session.run(None, {"x": np.ascontiguousarray(prepared)})[0])


class Door(Site):
    """A site whose model takes frames, and a camera that asks for it by name."""

    def register(self) -> None:
        folder = self.folder / "pictures"
        folder.mkdir()
        for index in range(6):
            Image.fromarray(frame(17 * index)[0]).save(folder / f"{index}.png")
        how = ("--image-input", "x", "--scale", "1", "--mean", "128", "--std", "128", "--samples", folder, "--json")
        done = self.splitbus("model", "add", MODEL, self.model, *how, "--config", self.config)
        assert done.returncode == 0, done.stderr
        self.record = json.loads(done.stdout)
        self.key = model_key(self.record["card"]["model"])


@pytest.fixture(scope="module")
def door(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with broker_factory() as broker:
        site = Door(broker, tmp_path_factory.mktemp("door"), f"s{secrets.token_hex(4)}")
        with serving(site):
            yield site


def ask_until_coded(session: InferenceSession, codecs: tuple[str, ...], site: Door) -> None:
    def coded() -> bool:
        answer = ask(session, frame(0))
        return not answer.is_local and set(answer.codecs) <= set(codecs)

    try:
        wait_for(f"frames travel as one of {codecs}", coded)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{site.plan()}\n{site.log('gateway').read_text()[-2000:]}") from None


def test_pictures_are_sent_as_a_pin_says_and_answered_as_the_worker_sees_them(door: Door) -> None:
    expected = Expected(door.model)
    with door.open(MODEL) as session:
        (given,) = session.get_inputs()
        assert (given.type, given.shape) == ("tensor(uint8)", [1, 112, 112, 3])
        door.splitbus("plan", "pin", CAMERA, MODEL, "--cut=0", "--codec=jpeg75", f"--node={EDGE}", *door.options)
        ask_until_coded(session, ("jpeg75",), door)
        lost = []
        for index in range(20):
            answer = ask(session, frame(index))
            if answer.is_local:
                continue
            sent = pack_tensor("x", frame(index), "jpeg75")
            assert (answer.route, answer.cuts, answer.codecs) == ((CAMERA, EDGE), (0,), ("jpeg75",))
            assert answer.cut_bytes == (len(sent.data),)
            seen = expected.scores(np.asarray(unpack_tensor(sent)))
            np.testing.assert_allclose(answer.outputs[0], seen, rtol=1e-5, atol=1e-5 * float(np.abs(seen).max()))
            lost.append(float(np.abs(answer.outputs[0] - expected.scores(frame(index))).max()))
        assert len(lost) >= 10
        assert min(lost) > 0  # what JPEG takes away is in the answer, and so in the agreement that was measured
        size = next(size for size in door.record["sizes"] if (size["cut"], size["codec"]) == (0, "jpeg75"))
        assert size["error"] > 0
        door.splitbus("plan", "unpin", CAMERA, MODEL, *door.options)


def test_the_fetched_model_answers_alone_as_the_float_model_does(door: Door) -> None:
    with door.open(MODEL):
        (fetched,) = (door.folder / CAMERA / "models").glob("*/*.onnx")
    with InferenceSession(fetched, one_thread()) as session:
        answer = ask(session, frame(3))
    assert answer.is_local
    np.testing.assert_allclose(answer.outputs[0], Expected(door.model).scores(frame(3)), rtol=1e-4, atol=1e-5)


def test_the_planner_takes_the_cameras_own_jpeg_when_it_wins_and_says_so(door: Door) -> None:
    door.relay.set(POOR)
    pictures = tuple(name for name, codec in CODECS.items() if codec.pictures)
    with door.open(MODEL) as session:
        ask_until_coded(session, pictures, door)
        decision = door.decisions()[-1]
    (cut,) = decision.chosen.cuts
    assert (cut.index, decision.chosen.nodes) == (0, [CAMERA, EDGE])
    assert f"input {cut.codec} on {EDGE}" in decision.chosen.label
    plan = door.settled_plan()
    assert plan.head is not None
    assert (plan.head.slice, plan.head.coding) == (None, cut.codec)


def test_who_holds_the_float_model_is_told_what_to_open(door: Door) -> None:
    mark = door.watch.mark
    with door.open(door.model) as session:
        (alert,) = wait_for("the alert", lambda: door.watch.alerts(CAMERA, "model_differs", mark))
        assert f"{door.model} is not model {MODEL}: it was made from this file to take frames" in alert.reason
        prepared = np.moveaxis((frame(0).astype(np.float32) - 128) / 128, -1, 1)
        session.run(None, {"x": prepared})
        assert session.last_answer is not None
        assert session.last_answer.is_local


def test_the_exported_file_is_the_registered_model(door: Door, tmp_path: Path) -> None:
    target = tmp_path / "frames.onnx"
    done = door.splitbus("model", "export", MODEL, target, "--config", door.config)
    assert done.returncode == 0, done.stderr
    card = door.watch.last(m.ModelCard, topics.MODEL.at(door.name, name=MODEL))
    assert card is not None
    with door.open(target) as session:
        wait_for("frames travel", lambda: not ask(session, frame(0)).is_local)
        answer = ask(session, frame(1))
    assert not answer.late
