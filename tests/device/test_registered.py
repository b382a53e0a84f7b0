"""Models by name: fetched once over the bus, kept, and used again without a broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import models
from tests.brokers import BrokerFactory
from tests.device.rig import Site, made_up, plain, same, wait_for

from splitbus_device import InferenceSession
from splitbus_device.cards import Cards, files_of, keep, kept, lay_out
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import BlobError, DecodeError, ModelError
from splitbus_schemas.ids import sha256
from splitbus_schemas.messages import FileRef, ModelCard
from splitbus_schemas.topics import MODEL

pytestmark = pytest.mark.broker

CLOSE = 1e-5


@pytest.mark.parametrize("make", [models.external, lambda folder: models.save(models.residual(), folder)])
def test_a_name_is_fetched_once_and_works_without_a_broker_afterwards(
    broker_factory: BrokerFactory, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    feeds = made_up(plain(path))
    with broker_factory() as broker:
        site = Site(broker, tmp_path)
        try:
            card = site.register(path, "person")
            with site.session("person") as session:
                same(session.run(None, feeds), plain(path).run(None, feeds))
            pieces = site.blobs.counters["pieces"]
            plan = site.plan(card, [("edge1", 2)])
            with site.worker("edge1", *site.stage_slices(plan)), site.session("person") as session:
                site.follow(session, plan)
                same(session.run(None, feeds), plain(path).run(None, feeds), CLOSE)
                assert session.last_answer is not None
                assert not session.last_answer.is_local
            # the head's graph and manifest, but neither files nor weights again
            assert site.blobs.counters["pieces"] - pieces <= 2
        finally:
            site.close()
    begun = time.monotonic()
    with InferenceSession("person", broker=broker.url, device="cam", store=tmp_path / "camera") as session:
        assert time.monotonic() - begun < 4
        same(session.run(None, feeds), plain(path).run(None, feeds))


def test_the_new_model_of_a_name_is_fetched(site: Site, tmp_path: Path) -> None:
    first = models.save(models.residual(), tmp_path, "first.onnx")
    second = models.save(models.chain(), tmp_path, "second.onnx")
    site.register(first, "person")
    site.session("person").close()
    site.registry.remove("person")
    site.register(second, "person")
    with site.session("person") as session:
        feeds = made_up(session)
        same(session.run(None, feeds), plain(second).run(None, feeds))


def test_a_new_model_that_cannot_be_fetched_leaves_the_kept_one(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = models.save(models.residual(), tmp_path, "first.onnx")
    card = site.register(path, "person")
    site.session("person").close()
    gone = card.model_copy(update={"model": "1" * 64, "files": [FileRef(name="x.onnx", sha256="1" * 64, bytes=7)]})
    site._say(MODEL, gone, name="person")
    with site.session("person") as session:
        feeds = made_up(session)
        same(session.run(None, feeds), plain(path).run(None, feeds))
    assert "model person is used as it was kept" in caplog.text
    with pytest.raises(BlobError, match="the gateway has no blob 111111111111"):
        site.session("person", store=tmp_path / "another")


def test_a_model_that_is_registered_later_is_found(site: Site, chain: Path) -> None:
    with site.session(chain) as session:
        feeds = made_up(session)
        same(session.run(None, feeds), plain(chain).run(None, feeds))
        card = site.register(chain)
        wait_for("it asks for a plan", lambda: site.plan_states(card))


def test_a_broken_card_is_told_and_another_model_found_all_the_same(site: Site, chain: Path) -> None:
    site.bus.publish(MODEL.at(site.name, name="broken"), b"{", qos=1, retain=True)
    empty = site.registry.add("empty", chain).model_copy(update={"files": []})
    site._say(MODEL, empty, name="empty")
    card = site.register(chain)
    with site.session(chain):
        wait_for("it asks for a plan", lambda: site.plan_states(card))
        wait_for("both are told", lambda: sum("ModelCard" in reason for reason in site.alerts()) == 2)


# What needs no broker


def card_of(*names: str) -> ModelCard:
    files = [FileRef(name=name, sha256=sha256(name.encode()), bytes=len(name)) for name in names]
    return ModelCard(name="person", model="0" * 64, files=files, inputs=[], outputs=[], nodes=1, cuts=[])


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_a_gateway_cannot_write_outside_the_models_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="a path below the model's folder was expected"):
        list(files_of(card_of("model.onnx", name), tmp_path))


def test_files_are_laid_out_with_their_folders(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    card = card_of("model.onnx", "data/weights.bin")
    for file in card.files:
        store.put(file.name.encode())
    for _ in range(2):
        assert lay_out(card, store, tmp_path / "m") == tmp_path / "m" / "model.onnx"
    assert (tmp_path / "m" / "data" / "weights.bin").read_bytes() == b"data/weights.bin"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BlobError, match="cannot be written"):
        lay_out(card, store, tmp_path / "file")


def test_a_card_that_was_written_down(tmp_path: Path) -> None:
    path = tmp_path / "models" / "person.json"
    assert kept(path) is None
    keep(card_of("model.onnx"), path)
    assert kept(path) == card_of("model.onnx")
    path.write_bytes(path.read_bytes()[:-5])
    assert kept(path) is None, "a damaged one is none"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BlobError, match="cannot be written"):
        keep(card_of("model.onnx"), tmp_path / "file" / "person.json")


def test_a_card_under_anothers_name_is_no_card() -> None:
    cards = Cards()
    with pytest.raises(DecodeError, match="ModelCard of other names 'person'"):
        cards.note("other", card_of("model.onnx").to_json())
    cards.note("person", card_of("model.onnx").to_json())
    assert cards.wait(lambda card: card.name == "person", 0) == card_of("model.onnx")
    cards.note("person", b"")
    assert cards.wait(lambda card: card.name == "person", 0) is None
    cards.close()
    assert cards.wait(lambda _: True) is None
