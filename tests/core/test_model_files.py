"""Models are read and written as by onnx, with weights in the file, beside it or in nodes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphscale
from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model, save_model
from tests.zoo.handmade import (
    HANDMADE,
    Graph,
    classic,
    constant_nodes,
    float16,
    save_with_external_data,
    stored_as,
)

LIGHT_MODELS = sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx"))


def many_types() -> onnx.ModelProto:
    """A model with an initializer of every type, large and small."""
    tensors = []
    for elem_type in TensorProto.DataType.values():
        name = TensorProto.DataType.Name(elem_type)
        if name in ("UNDEFINED", "STRING"):
            continue
        for count in (3, 3000):
            numbers = np.arange(count) % 2
            tensors.append(helper.make_tensor(f"{name}_{count}", elem_type, [count], numbers))
    tensors.append(
        helper.make_tensor("STRING", TensorProto.STRING, [2], [b"a" * 2000, "é".encode()])
    )
    tensors.append(helper.make_tensor("scalar", TensorProto.FLOAT, [], [2.0]))
    tensors.append(helper.make_tensor("none", TensorProto.FLOAT, [0, 3], []))
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "types",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        tensors,
    )
    return helper.make_model(graph)


def same_weights(one: onnx.ModelProto, other: onnx.ModelProto) -> None:
    pairs = zip(one.graph.initializer, other.graph.initializer, strict=True)
    for before, after in pairs:
        assert (before.name, before.dims, before.data_type) == (
            after.name,
            after.dims,
            after.data_type,
        )
        left, right = numpy_helper.to_array(before), numpy_helper.to_array(after)
        assert left.tobytes() == right.tobytes() or left.tolist() == right.tolist(), before.name


@pytest.mark.parametrize("make", [many_types, *HANDMADE.values()], ids=["types", *HANDMADE])
def test_reading_and_writing_changes_nothing(tmp_path: Path, make) -> None:
    model = make()
    onnx.save(model, tmp_path / "a.onnx")
    save_model(load_model(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    again = onnx.load(tmp_path / "b.onnx")
    same_weights(model, again)
    assert [node.SerializeToString(deterministic=True) for node in again.graph.node] == [
        node.SerializeToString(deterministic=True) for node in model.graph.node
    ]
    assert list(again.graph.input) == list(model.graph.input)
    assert list(again.graph.output) == list(model.graph.output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_a_model_may_be_written_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    onnx.save(classic(17), path)
    save_model(load_model(path), path)
    same_weights(classic(17), onnx.load(path))


def test_external_data_is_read_and_written_inline(tmp_path: Path) -> None:
    path = save_with_external_data(classic(17), tmp_path)
    save_model(load_model(path), tmp_path / "whole.onnx")
    same_weights(classic(17), onnx.load(tmp_path / "whole.onnx", load_external_data=False))


def test_large_models_are_written_with_external_data(tmp_path: Path, monkeypatch) -> None:
    """With a lower limit in place of protobuf's 2 GiB."""
    monkeypatch.setattr("graphscale.core.model_files._MAX_MESSAGE", 50_000)
    model = constant_nodes(classic(17))
    save_model(load_model(model), tmp_path / "a.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data"]
    assert (tmp_path / "a.onnx").stat().st_size < 50_000
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    expected, result = (
        onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(
            None, {"image": image}
        )[0]
        for source in (model.SerializeToString(), str(tmp_path / "a.onnx"))
    )
    np.testing.assert_array_equal(expected, result)
    save_model(load_model(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    onnx.checker.check_model(str(tmp_path / "b.onnx"), full_check=True)


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    model = load_model(classic(17))
    save_model(model, tmp_path / "a.onnx", lambda done, total: told.append((done, total)))
    assert told
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_models_in_memory_are_left_alone() -> None:
    proto = classic(17)
    before = proto.SerializeToString(deterministic=True)
    pretrain = graphscale.shrink(proto, init="fresh")
    graphscale.grow(pretrain)
    assert proto.SerializeToString(deterministic=True) == before
    loaded = ir.from_proto(proto)
    before = ir.to_proto(loaded).SerializeToString(deterministic=True)
    result = graphscale.shrink(loaded, init="resize")
    assert isinstance(result, ir.Model)
    assert isinstance(graphscale.grow(result), ir.Model)
    assert ir.to_proto(loaded).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("damage", ["values", "empty file", "no regular file"])
def test_unreadable_weights_of_models_in_memory_are_named(tmp_path: Path, damage: str) -> None:
    if damage == "values":
        proto = classic(17)
        proto.graph.initializer[0].dims[0] += 1
        loaded = ir.from_proto(proto)
    else:
        loaded = ir.load(save_with_external_data(classic(17), tmp_path))
        for each in tmp_path.iterdir():
            if damage == "empty file":
                each.write_bytes(b"")
            else:  # a reader would wait for ever
                each.unlink()
                os.mkfifo(each)
    for function in (graphscale.plan, graphscale.shrink):
        with pytest.raises(GraphScaleError, match=r"^the model in memory: .*tensor '"):
            function(loaded)


def test_paths_and_models_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    onnx.save(classic(17), path)
    results = [graphscale.shrink(each, init="resize") for each in (path, str(path), classic(17))]
    same_weights(results[0], results[1])
    same_weights(results[0], results[2])
    assert graphscale.plan(path).report() == graphscale.plan(classic(17)).report()


def test_a_wrong_kind_of_model_is_named() -> None:
    with pytest.raises(GraphScaleError, match=r"int is no model; give the path of an ONNX model"):
        graphscale.shrink(17)
    with pytest.raises(GraphScaleError, match=r"a\{b\}\.onnx: cannot be read \(No such file"):
        graphscale.shrink("a{b}.onnx")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_weights_are_computed_in_float32(dtype: str) -> None:
    """Grown weights are the rounding of what float32 weights of the same numbers grow into."""
    kinds = {
        "float16": (np.float16, TensorProto.FLOAT16),
        "bfloat16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16),
    }
    short, elem_type = kinds[dtype]
    target = stored_as(classic(17), short, elem_type)
    pretrain = graphscale.shrink(target, init="resize")
    grown = graphscale.grow(pretrain)
    for before, after in zip(pretrain.graph.initializer, grown.graph.initializer, strict=True):
        assert before.data_type == after.data_type
        small, large = numpy_helper.to_array(before), numpy_helper.to_array(after)
        if small.ndim != 4 or small.shape == large.shape:
            continue
        matrices = [
            graphscale.core.resampling.growth_matrix(small.shape[axis], large.shape[axis])
            for axis in (2, 3)
        ]
        exact = matrices[0] @ small.astype(np.float64) @ matrices[1].T
        rounded = exact.astype(short).astype(np.float64)
        step = np.abs(rounded) * float(ml_dtypes.finfo(short).eps)
        assert (np.abs(large.astype(np.float64) - exact) <= 0.51 * step + 1e-7).all()


def test_float16_networks_run_after_shrinking_and_growing() -> None:
    pretrain = graphscale.shrink(float16(classic(17)), init="resize")
    for model in (pretrain, graphscale.grow(pretrain)):
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (entry,) = session.get_inputs()
        image = np.ones([2, *entry.shape[1:]], np.float16)
        assert np.isfinite(session.run(None, {"image": image})[0]).all()


@pytest.mark.slow
def test_a_model_over_2_gib(tmp_path: Path) -> None:
    """The weights are a hole in a sparse file, which is made quickly."""
    g = Graph()
    x = g.op("Relu", g.conv("image", 3, 128, 5, 5, strides=[2, 2], pads=[2] * 4))
    x = g.op("Flatten", x)
    rows, columns = 128 * 16 * 16, 17_000
    x = g.op("Gemm", x, "fc.weight", transB=1)
    weight = TensorProto(
        name="fc.weight",
        data_type=TensorProto.FLOAT,
        dims=[columns, rows],
        data_location=TensorProto.EXTERNAL,
    )
    weight.external_data.add(key="location", value="weights.bin")
    g.weights.append(weight)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])
    output = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", columns])
    graph = helper.make_graph(g.nodes, "large", [image], [output], g.weights)
    path = tmp_path / "large.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    size = 4 * rows * columns
    assert size > 2**31
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(size)
        file.seek(4 * 5 * rows)
        file.write(np.ones(rows, np.float32).tobytes())  # the fifth neuron's

    from graphscale.cli.command_line import main

    assert main(["shrink", str(path), "--init", "resize"]) == 0
    assert main(["grow", str(tmp_path / "large.pretrain.onnx")]) == 0
    grown = tmp_path / "large.pretrain.grown.onnx"
    assert grown.with_name(grown.name + ".data").stat().st_size >= size
    onnx.checker.check_model(str(grown), full_check=True)
    loaded = load_model(grown).graph.initializers["fc.weight"].const_value.numpy()
    np.testing.assert_allclose(loaded[5], 1, rtol=1e-4)
    assert not loaded[6].any()


def test_a_torch_checkpoint_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("checkpoint/data.pkl", b"")
    with pytest.raises(GraphScaleError, match="is a zip archive, as torch"):
        load_model(path)
