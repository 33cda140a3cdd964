"""Shrink and grow on every network family, as several exporters write it.

What a user relies on: the pre-train network is valid, runs with any batch and keeps every name;
the grown network is the target node for node, with weights by Eq. 5; shrinking that once more
changes nothing.
"""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

import graphscale
from graphscale.passes.normalize.resolve_static_ifs import ResolveStaticIfs
from tests.zoo import HANDMADE, NETWORKS, export

LIGHT_MODELS = sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx"))
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
TOLERANCE = {TensorProto.FLOAT: 2e-6, TensorProto.FLOAT16: 2e-3, TensorProto.BFLOAT16: 2e-2}
# Taken through the slower exporter as well; the others with `-m slow`.
QUICK_BY_DYNAMO = [
    "overfeat_fast",
    "resnet18",
    "shufflenet_v2",
    "convnext_tiny",
    "hrnet_w18",
    "fpn_size",
    "unet_valid",
    "fcn_resize",
]


def narrow(name: str, exporter: str, **options: object) -> onnx.ModelProto:
    return export(name, exporter, width=0.25, num_classes=10, **options)


def tensors(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers and the tensors of Constant nodes, by name."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def array(tensor: onnx.TensorProto) -> np.ndarray:
    return numpy_helper.to_array(tensor).astype(np.float64)


def outputs(model: onnx.ModelProto, batch: int, also: list[str] = ()) -> list[np.ndarray]:
    """What onnxruntime makes of random images, and the inner tensors asked for."""
    if also:
        named = onnx.ModelProto()
        named.CopyFrom(model)
        named.graph.output.extend(onnx.ValueInfoProto(name=name) for name in also)
        model = named
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in value.shape]
        dtype = np.float16 if "float16" in value.type else np.float32
        feeds[value.name] = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return session.run(None, feeds)


def has_symbolic_batch(model: onnx.ModelProto) -> bool:
    return bool(model.graph.input[0].type.tensor_type.shape.dim[0].dim_param)


def computed(model: onnx.ModelProto) -> set[str]:
    """Tensors that follow from constants alone, with the constants."""
    known = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if all(name in known for name in node.input if name):
            known |= set(node.output)
    return known


def nodes(model: onnx.ModelProto, without: set[str] = frozenset()) -> list[tuple]:
    """Every node but the numbers in a Constant; those that make a tensor in `without` left out."""
    return [
        (
            *(node.domain, node.op_type, node.name, list(node.input), list(node.output)),
            [
                (each.name, list(each.t.dims), each.t.data_type)
                if each.name == "value"
                else each.SerializeToString()
                for each in sorted(node.attribute, key=lambda each: each.name)
            ],
        )
        for node in model.graph.node
        if not set(node.output) <= without
    ]


def frame(model: onnx.ModelProto) -> list:
    """What is left of a graph beside its nodes: weights' shapes, inputs, outputs, opsets."""
    weights = {
        name: (list(tensor.dims), tensor.data_type) for name, tensor in tensors(model).items()
    }
    ends = [value.SerializeToString() for value in (*model.graph.input, *model.graph.output)]
    return [weights, ends, sorted((each.domain, each.version) for each in model.opset_import)]


def plan_of(pretrain: onnx.ModelProto) -> graphscale.Plan:
    return graphscale.Plan.of(ir.from_proto(pretrain))


def check_pretrain(target: onnx.ModelProto, pretrain: onnx.ModelProto) -> None:
    onnx.checker.check_model(pretrain, full_check=True)
    assert {node.name for node in target.graph.node} <= {node.name for node in pretrain.graph.node}
    assert tensors(target).keys() <= tensors(pretrain).keys()
    for before, after in zip(target.graph.output, pretrain.graph.output, strict=True):
        assert before.name == after.name
    for batch in (1, 3) if has_symbolic_batch(target) else (1,):
        for output in outputs(pretrain, batch):
            assert np.isfinite(output).all()
            assert not has_symbolic_batch(target) or output.shape[0] == batch


def check_weights(pretrain: onnx.ModelProto, grown: onnx.ModelProto) -> None:
    """Kernels by torch's interpolation and Eq. 5's amplitude; other weights untouched."""
    plan = plan_of(pretrain)
    resized = {weight.name: weight for weight in plan.weights}
    before, after = tensors(pretrain), tensors(grown)
    for name, tensor in after.items():
        if tensor.data_type not in FLOATS or name in plan.constants:
            continue
        if name not in resized:
            np.testing.assert_array_equal(array(tensor), array(before[name]), err_msg=name)
        elif resized[name].kind == "kernel" and len(tensor.dims) == 4:
            small, large = array(before[name]), array(tensor)
            expected = torch.nn.functional.interpolate(
                torch.from_numpy(small), large.shape[2:], mode="bilinear", align_corners=False
            ).numpy()
            expected *= np.prod(small.shape[2:]) / np.prod(large.shape[2:])
            allowed = TOLERANCE[tensor.data_type] * np.abs(expected).max()
            np.testing.assert_allclose(large, expected, rtol=0, atol=allowed, err_msg=name)


def check_multiplications(target: onnx.ModelProto, pretrain: onnx.ModelProto) -> None:
    """The plan counts what the maps and kernels that onnxruntime sees amount to (Eq. 3)."""
    planned = plan_of(pretrain).multiplications(["Conv"])
    for model, which in ((target, "target"), (pretrain, "pretrain")):
        layers = [node for node in model.graph.node if node.op_type == "Conv"]
        seen = outputs(
            model, 1, [name for node in layers for name in (node.output[0], node.input[1])]
        )
        maps, kernels = seen[-2 * len(layers) :: 2], seen[1 - 2 * len(layers) :: 2]
        counts = (kernel.size * np.prod(map_.shape[2:]) for map_, kernel in zip(maps, kernels))
        assert planned[which] == sum(counts)


def with_branches_decided(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model whose Ifs are replaced by their branches, as shrink says that it does."""
    ifs = [node.name for node in model.graph.node if node.op_type == "If"]
    if not ifs:
        return model
    ir_model = ir.from_proto(model)
    shapes = {value.name: [1, *value.shape[1:]] for value in ir_model.graph.inputs}
    assert ResolveStaticIfs(shapes)(ir_model).names == ifs
    return ir.to_proto(ir_model)


def check_loop(model: onnx.ModelProto) -> None:
    pretrain = graphscale.shrink(model, init="resize")
    target = with_branches_decided(model)
    check_pretrain(target, pretrain)
    check_multiplications(target, pretrain)

    grown = graphscale.grow(pretrain)
    assert nodes(grown) == nodes(target)
    assert frame(grown) == frame(target)
    for output in outputs(grown, 1):
        assert np.isfinite(output).all()
    check_weights(pretrain, grown)

    again = graphscale.shrink(grown, init="resize")
    assert nodes(again) == nodes(pretrain)
    assert frame(again) == frame(pretrain)
    first, second = tensors(pretrain), tensors(again)
    for name, tensor in first.items():
        allowed = TOLERANCE.get(tensor.data_type, 0) * max(
            np.abs(array(tensor)).max(initial=0), 1e-9
        )
        np.testing.assert_allclose(array(second[name]), array(tensor), rtol=0, atol=allowed)


@pytest.mark.parametrize("name", NETWORKS)
def test_older_exporter(name: str) -> None:
    check_loop(narrow(name, "torchscript"))


@pytest.mark.parametrize("name", QUICK_BY_DYNAMO)
def test_dynamo_exporter(name: str) -> None:
    check_loop(narrow(name, "dynamo"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in QUICK_BY_DYNAMO])
def test_dynamo_exporter_on_the_rest(name: str) -> None:
    check_loop(narrow(name, "dynamo"))


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", NETWORKS)
def test_without_folded_constants(name: str, exporter: str) -> None:
    check_loop(narrow(name, exporter, fold=False))


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v1", "unet_bilinear"])
def test_fixed_batch(name: str) -> None:
    check_loop(narrow(name, "torchscript", batch=1))


@pytest.mark.parametrize(
    ("name", "opset"),
    [("resnet18", 7), ("vgg11", 9), ("fpn_scale", 9), ("unet_bilinear", 10), ("shufflenet_v1", 11)],
)
def test_older_opsets_as_torch_writes_them(name: str, opset: int) -> None:
    check_loop(narrow(name, "torchscript", opset=opset))


def test_float16_as_torch_writes_it() -> None:
    check_loop(narrow("mobilenet_v3_small", "torchscript", dtype=torch.float16))


@pytest.mark.parametrize("name", HANDMADE)
def test_handmade_models(name: str) -> None:
    check_loop(HANDMADE[name]())


@pytest.mark.parametrize("path", LIGHT_MODELS, ids=lambda path: path.stem)
def test_model_zoo_with_computed_weights(path: Path) -> None:
    """Weights that nodes compute are folded first, and the plan names them."""
    target = onnx.load(path)
    pretrain = graphscale.shrink(path)
    assert plan_of(pretrain).folded
    assert all(np.isfinite(output).all() for output in outputs(pretrain, 1))
    grown = graphscale.grow(pretrain)
    onnx.checker.check_model(grown, full_check=True)
    assert all(np.isfinite(output).all() for output in outputs(grown, 1))
    known = computed(target)
    assert nodes(grown, without=known) == nodes(target, without=known)
