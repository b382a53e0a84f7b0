from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests import models

from splitbus_gateway.graph import all_cuts, load_graph
from splitbus_schemas.errors import ModelError

from .conftest import Load


def test_identity_is_the_hash_of_the_file(tmp_path: Path) -> None:
    path = models.save(models.chain(), tmp_path)
    graph = load_graph(path)
    assert graph.sha256 == graph.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_identity_covers_external_data(tmp_path: Path) -> None:
    path = models.external(tmp_path)
    before = load_graph(path)
    data = tmp_path / "model.data"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    after = load_graph(path)
    assert before.files[0] == after.files[0]
    assert before.sha256 != after.sha256


@pytest.mark.parametrize("name", ["chain", "constant_weights", "initializers_as_inputs", "float16", "float_fields"])
def test_weights_are_the_bytes_of_the_file(load: Load, name: str) -> None:
    proto = models.CORPUS[name]()
    graph = load(proto)
    tensors = {t.name: t for t in proto.graph.initializer}
    tensors |= {n.output[0]: n.attribute[0].t for n in proto.graph.node if n.op_type == "Constant"}
    large = {key for key, t in tensors.items() if numpy_helper.to_array(t).nbytes > 1024}
    assert set(graph.weights) == large
    assert large
    for key, weight in graph.weights.items():
        expected = numpy_helper.to_array(tensors[key])
        assert np.array_equal(weight.array(), expected)
        assert weight.read() == expected.tobytes()
        assert weight.sha256 == hashlib.sha256(expected.tobytes()).hexdigest()
        assert (weight.file is None) == (name == "float_fields")
    assert graph.proto.ByteSize() < 6000, "the graph holds no weights"


def test_equal_weights_are_told_apart_by_name_alone(load: Load) -> None:
    """The second of two equal tensors is found too, wherever."""
    proto = models.chain()
    twin = TensorProto()
    twin.CopyFrom(proto.graph.initializer[2])
    twin.name = "twin"
    proto.graph.initializer.append(twin)
    proto.graph.node.append(helper.make_node("Identity", ["twin"], ["z"]))
    proto.graph.output.append(models.value("z", twin.dims))
    graph = load(proto)
    assert graph.weights["twin"].read() == twin.raw_data == graph.weights[proto.graph.initializer[2].name].read()


def test_a_weight_that_changed_on_disk(tmp_path: Path) -> None:
    path = models.external(tmp_path)
    weight = next(iter(load_graph(path).weights.values()))
    (tmp_path / "model.data").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"can no longer be read from .*model\.data"):
        weight.read()
    with pytest.raises(ModelError, match="can no longer be read"):
        weight.array()


def _external(location: str, **entries: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = models.external(folder)
        proto = onnx.load(path, load_external_data=False)
        tensor = proto.graph.initializer[2]
        del tensor.external_data[:]
        for key, entry in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=entry)
        return models.save(proto, folder)

    return build


def _text(content: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(content)
        return path

    return build


def _changed(change: Callable[[ModelProto], object]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        proto = models.residual()
        change(proto)
        return models.save(proto, folder)

    return build


def _clear(field: str) -> Callable[[ModelProto], object]:
    return lambda proto: proto.graph.ClearField(field)


def _opset(version: int) -> Callable[[ModelProto], object]:
    return lambda proto: setattr(proto.opset_import[0], "version", version)


def _node(op: str, inputs: list[str], domain: str = "") -> Callable[[ModelProto], object]:
    def change(proto: ModelProto) -> None:
        proto.graph.node.append(helper.make_node(op, inputs, ["z"], "odd", domain=domain))
        proto.graph.output.append(onnx.ValueInfoProto(name="z"))

    return change


def _cycle(proto: ModelProto) -> None:
    proto.graph.node[0].input[0] = "y"


def _twice(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))


def _no_shape(proto: ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.ClearField("shape")


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "model.onnx", "model.onnx cannot be read: No such file"),
    "folder": (lambda folder: folder, "cannot be read: Is a directory"),
    "empty": (_text(b""), "model.onnx is not an ONNX model"),
    "text": (_text(b"<html>404 not found</html>"), "model.onnx is not an ONNX model"),
    "no nodes": (_changed(_clear("node")), "model.onnx has no nodes"),
    "no outputs": (_changed(_clear("output")), "model.onnx has no outputs"),
    "old": (_changed(_opset(8)), "model.onnx uses opset 8, this program reads 9 to 23"),
    "new": (_changed(_opset(24)), "model.onnx uses opset 24, this program reads 9 to 23"),
    "operator": (_changed(_node("Telepathy", ["y"])), r"odd \(Telepathy\) is no operator of opset 17"),
    "domain": (_changed(_node("NMS", ["y"], "mmcv")), r"odd \(NMS\) is of domain mmcv"),
    "no producer": (_changed(_node("Relu", ["nowhere"])), "reads tensor nowhere"),
    "twice": (
        _changed(lambda proto: proto.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))),
        "gives tensor y",
    ),
    "cycle": (_changed(_cycle), "depends on its own output"),
    "no input shape": (_changed(_no_shape), "input x of .*model.onnx declares no shape"),
    "no data": (_external("other.data"), "other.data, which is not there"),
    "outside": (_external("../model.data"), "outside its own folder"),
    "absolute": (_external("/etc/passwd"), "outside its own folder"),
    "beyond": (_external("model.data", offset="999999999"), "model.data is too short"),
    "negative": (_external("model.data", offset="-8"), "gives weight b.w 2304 bytes at -8"),
    "length": (_external("model.data", length="5"), "gives weight b.w 5 bytes at 0, its shape needs 2304"),
    "number": (_external("model.data", offset="ten"), "a place in model.data that is not a number"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_one_sentence(tmp_path: Path, name: str) -> None:
    build, message = BAD[name]
    with pytest.raises(ModelError, match=message) as caught:
        load_graph(build(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(10_000))
    folder = tmp_path / "model"
    folder.mkdir()
    path = models.external(folder)
    (folder / "model.data").unlink()
    (folder / "model.data").symlink_to(secret)
    with pytest.raises(ModelError, match="outside its own folder"):
        load_graph(path)


def test_a_model_that_is_itself_a_link_as_download_caches_keep_them(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    models.external(tmp_path / "blobs")
    for name in ("model.onnx", "model.data"):
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blobs" / name)
    assert load_graph(tmp_path / "snapshot" / "model.onnx").weights


@given(content=st.binary(max_size=200), cut=st.integers(0, 3000))
def test_any_bytes_are_a_model_or_our_error(tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int) -> None:
    path = tmp_path_factory.mktemp("bytes") / "model.onnx"
    whole = models.single_node().SerializeToString()
    for data in (content, whole[:cut], content + whole):
        path.write_bytes(data)
        try:
            graph = load_graph(path)
        except ModelError:
            continue
        assert all_cuts(graph)


def test_shapes_given_for_symbolic_inputs(tmp_path: Path) -> None:
    path = models.save(models.transformer(), tmp_path)
    graph = load_graph(path, shapes={"ids": (2, 9)})
    assert graph.inputs[0].shape == ("N", "T")
    assert graph.types.specs["y"].sizes == (2, 9, 32)
    assert graph.types.specs["y"].shape == ("N", "T", 32)
    assert load_graph(path, feed={"ids": np.ones((1, 4), np.int64)}).types.specs["y"].sizes == (1, 4, 32)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"nobody": (1,)}, "has no input nobody: it has x"),
        ({"x": (1, 3)}, r"has shape \['N', 3, 8, 8\], \[1, 3\] does not fit"),
        ({"x": (1, 4, 8, 8)}, "does not fit it"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_graph(models.save(models.shape_subgraph(), tmp_path), shapes=shapes)


def test_what_onnx_cannot_infer_is_found_by_a_run(load: Load) -> None:
    spec = load(models.runtime_operator()).types.specs["b"]
    assert (spec.dtype, spec.sizes) == ("float32", (1, 32))


def test_a_size_that_cannot_be_found_makes_its_cuts_illegal(load: Load) -> None:
    """Ones are no valid input here: the index is beyond the table."""
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["a"]),
        helper.make_node("FastGelu", ["a"], ["b"], domain="com.microsoft"),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    tensors = [models.weight("table", 1, 8), models.weight("w", 8, 8)]
    inputs, outputs = [models.value("i", [1], models.INT64)], [models.value("y", [1, 8])]
    graph = load(models.model(nodes, inputs, outputs, tensors, domains=["com.microsoft"]))
    reasons = {cut.index: cut.reason for cut in all_cuts(graph) if not cut.legal}
    assert set(reasons) == {0, 1, 2, 3} or set(reasons) == {2}
    assert "b has a size that could not be found" in reasons[2]


def test_stale_shapes_in_the_file_are_not_believed(load: Load) -> None:
    proto = models.chain()
    proto.graph.value_info.append(models.value("ar", [1, 8, 99, 99]))
    assert load(proto).types.specs["ar"].sizes == (1, 8, 8, 8)
