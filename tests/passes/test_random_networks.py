"""The promises of shrink and grow, held over random networks.

200 networks always; 1,000 with `-m slow`. A seed always gives the same network.
"""

from __future__ import annotations

from itertools import combinations
from math import prod

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

import graphscale
from tests.passes.random_networks import RandomNetwork, random_network
from tests.passes.sampling_grids import JOINS, UNCHANGED, offset, sampling_grids

ALWAYS, ON_DEMAND = range(200), range(200, 1000)
LARGEST_PHASE = 0.5  # pixels between the grids of two maps that are joined


def run(model: onnx.ModelProto, batch: int, inner: bool = False) -> dict[str, np.ndarray]:
    """Outputs, or with `inner` every tensor, that onnxruntime computes from random images."""
    names = [value.name for value in model.graph.output]
    if inner:
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        more = {name for node in model.graph.node for name in node.output if name} - set(names)
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(more))
        model = whole
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(0)
    images = {
        entry.name: random.standard_normal([batch, *entry.shape[1:]]).astype(np.float32)
        for entry in session.get_inputs()
    }
    results = session.run(None, images)
    named = dict(zip((value.name for value in session.get_outputs()), results, strict=True))
    return {**images, **named} if inner else named


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if "." in tensor.name and tensor.data_type == onnx.TensorProto.FLOAT
    }


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with nothing of its learned numbers."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:], bare.graph.value_info[:]
    for tensor in bare.graph.initializer:
        if "." in tensor.name:
            shape = list(tensor.dims)
            tensor.Clear()
            tensor.dims.extend(shape)
    return bare


def interpolated(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Linear interpolation at half-pixel centres, end values repeated, times the ratio of sizes."""
    before = array.shape[axis]
    at = (np.arange(size) + 0.5) * before / size - 0.5
    lines = np.moveaxis(array.astype(np.float64), axis, -1)
    rows = [np.interp(at, np.arange(before), line) for line in lines.reshape(-1, before)]
    return np.moveaxis(np.reshape(rows, (*lines.shape[:-1], size)), -1, axis) * (before / size)


def grown_by_hand(network: RandomNetwork, name: str, small: np.ndarray, shape, maps) -> np.ndarray:
    """Eq. 5 for one weight; `maps` holds every tensor of the (pre-train, target) network."""
    if name not in network.interfaces:
        for axis in range(2, small.ndim):
            if small.shape[axis] != shape[axis]:
                small = interpolated(small, axis, shape[axis])
        return small
    source, order, rows = network.interfaces[name]
    before, after = (tensors[source].shape[1:] for tensors in maps)
    if rows == 1:
        small = small.T
    result = small.reshape(*(before[dim] for dim in order), -1)
    for axis, dim in enumerate(order):
        if dim > 0 and before[dim] != after[dim]:
            result = interpolated(result, axis, after[dim])
    result = result.reshape(-1, result.shape[-1])
    return result.T if rows == 1 else result


def check_runs(target: onnx.ModelProto, pretrain: onnx.ModelProto) -> None:
    onnx.checker.check_model(pretrain, full_check=True)
    assert [value.name for value in target.graph.input] == [v.name for v in pretrain.graph.input]
    assert {node.name for node in target.graph.node} <= {node.name for node in pretrain.graph.node}
    assert {each.name for each in target.graph.initializer} <= {
        each.name for each in pretrain.graph.initializer
    }
    assert {name for node in target.graph.node for name in node.output} <= {
        name for node in pretrain.graph.node for name in node.output
    }
    for output in run(pretrain, 3).values():
        assert output.shape[0] == 3
        assert np.isfinite(output).all()


def check_joins(target, pretrain, maps, plan) -> None:
    """Equal sizes stay equal; grids meet within half a pixel and are reported as they are."""
    small, large = maps
    entry = target.graph.input[0].name
    rank = len(large[entry].shape) - 2
    last = target.graph.node[0].op_type == "Transpose"
    spatial = range(1, rank + 1) if last else range(2, rank + 2)
    shapes = [{name: array.shape for name, array in tensors.items()} for tensors in (large, small)]
    for model, known in ((target, shapes[0]), (pretrain, shapes[1])):
        known.update({name: array.shape for name, array in weights(model).items()})
    grids = [sampling_grids(m, s, spatial) for m, s in zip((target, pretrain), shapes)]
    wholes = [[known[entry][dim] for dim in spatial] for known in shapes]

    def phase(name: str, dim: int) -> float:
        lines = [lines[name][dim] for lines in grids]
        first, second = (
            offset(line, known[name][dim], whole[line.axis])
            for line, known, whole in zip(lines, shapes, wholes)
        )
        return (second - first) * wholes[1][lines[1].axis] / float(lines[1].pitch)

    makers = {output: node for node in target.graph.node for output in node.output}

    def enlarged(name: str, dim: int) -> float:
        """How many of the map's pixels one pixel before its last Resize has become."""
        node = makers.get(name)
        if node is None or dim not in grids[1].get(node.input[0], {}):
            return 1.0
        if node.op_type in ("Resize", "Upsample"):
            before, after = (float(grids[1][each][dim].pitch) for each in (node.input[0], name))
            return max(1.0, before / after)
        return enlarged(node.input[0], dim) if node.op_type in UNCHANGED else 1.0

    for name, planned in plan.grids.items():
        for each in planned:
            assert each.phase == pytest.approx(phase(name, each.dimension), abs=1e-3), name
    for node in target.graph.node:
        if node.op_type not in JOINS:
            continue
        for one, other in combinations(node.input, 2):
            common = grids[0].get(one, {}).keys() & grids[0].get(other, {}).keys()
            for dim in common:
                sizes = [(known[one][dim], known[other][dim]) for known in shapes]
                if sizes[0][0] != sizes[0][1] or sizes[0][0] == 1:
                    continue
                assert sizes[1][0] == sizes[1][1]
                apart = phase(one, dim) - phase(other, dim)
                # An enlarged map can be no nearer than half a pixel of what it was before.
                pixel = max(enlarged(one, dim), enlarged(other, dim))
                assert abs(apart) <= LARGEST_PHASE * pixel + 1e-6, (node.name, apart)


def check_multiplications(model: onnx.ModelProto, maps: dict, counted: list[int]) -> None:
    counts = []
    sizes = {tensor.name: prod(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            which = node.input[0] if node.op_type == "ConvTranspose" else node.output[0]
            counts.append(sizes[node.input[1]] * prod(maps[which].shape[2:]))
        elif node.op_type in ("Gemm", "MatMul"):
            counts.append(sizes[node.input[1]])
    assert counted == counts


def check_growth(network: RandomNetwork, pretrain, grown, maps) -> None:
    assert without_weights(grown) == without_weights(network.model)
    before, after = weights(pretrain), weights(grown)
    for name, large in after.items():
        small = before[name]
        if small.shape == large.shape and name not in network.interfaces:
            np.testing.assert_array_equal(small, large, err_msg=name)
            continue
        expected = grown_by_hand(network, name, small, large.shape, maps)
        allowed = 2e-6 * np.abs(expected).max()
        np.testing.assert_allclose(large, expected, rtol=0, atol=allowed, err_msg=name)


def check_shrinks_back(pretrain: onnx.ModelProto, grown: onnx.ModelProto, options: dict) -> None:
    again = graphscale.shrink(grown, init="resize", **options)
    assert without_weights(again) == without_weights(pretrain)
    for (name, one), other in zip(weights(pretrain).items(), weights(again).values(), strict=True):
        allowed = 1e-5 * np.abs(one).max(initial=1e-9)
        np.testing.assert_allclose(other, one, rtol=0, atol=allowed, err_msg=name)


def check_promises(network: RandomNetwork, **options: object) -> None:
    target = network.model
    pretrain = graphscale.shrink(target, init="resize", **options)
    plan = graphscale.Plan.of(ir.from_proto(pretrain))
    check_runs(target, pretrain)
    maps = run(pretrain, 1, inner=True), run(target, 1, inner=True)
    check_joins(target, pretrain, maps, plan)
    for model, tensors, name in zip((pretrain, target), maps, ("pretrain", "target")):
        check_multiplications(
            model, tensors, [getattr(layer, f"{name}_multiplications") for layer in plan.layers]
        )
    grown = graphscale.grow(pretrain)
    check_growth(network, pretrain, grown, maps)
    check_shrinks_back(pretrain, grown, options)


@pytest.mark.parametrize("seed", ALWAYS)
def test_promises(seed: int) -> None:
    check_promises(random_network(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", ON_DEMAND)
def test_promises_on_demand(seed: int) -> None:
    check_promises(random_network(seed))


def check_unchanged(target: onnx.ModelProto, sizes: tuple[int, ...]) -> None:
    """With all kernels kept and the target's input size, the pre-train network is the target."""
    pretrain = graphscale.shrink(target, init="resize", keep=["*"], input_size=sizes)
    found = run(pretrain, 2)
    for name, expected in run(target, 2).items():
        allowed = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=allowed, err_msg=name)


@pytest.mark.parametrize("seed", range(1, 200, 4))
def test_a_network_that_nothing_shrinks_computes_the_same(seed: int) -> None:
    target = random_network(seed).model
    shape = [dim.dim_value for dim in target.graph.input[0].type.tensor_type.shape.dim]
    last = target.graph.node[0].op_type == "Transpose"
    check_unchanged(target, tuple(shape[1:-1] if last else shape[2:]))


@pytest.mark.parametrize("by", ["plan", "target"])
@pytest.mark.parametrize("seed", range(2, 200, 7))
def test_renamed_weights_are_matched_by_structure(seed: int, by: str) -> None:
    target = random_network(seed).model
    pretrain = graphscale.shrink(target, init="resize")
    expected = graphscale.grow(pretrain)
    plan = graphscale.Plan.of(ir.from_proto(pretrain))
    del pretrain.metadata_props[:]
    names = {each.name: f"p{number}" for number, each in enumerate(pretrain.graph.initializer)}
    for each in (*pretrain.graph.initializer, *pretrain.graph.input):
        each.name = names.get(each.name, each.name)
    for node in pretrain.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    grown = graphscale.grow(pretrain, **({"plan": plan} if by == "plan" else {"target": target}))
    assert without_weights(grown) == without_weights(expected)
    for name, weight in weights(expected).items():
        np.testing.assert_array_equal(weights(grown)[name], weight, err_msg=name)


@pytest.mark.parametrize("seed", range(0, 200, 12))
def test_torch_trains_what_onnxruntime_runs(seed: int) -> None:
    """The imported pre-train network has the same outputs, and gradients for every weight."""
    torch = pytest.importorskip("torch")
    pretrain = graphscale.shrink(random_network(seed).model, init="resize")
    (expected,) = run(pretrain, 3).values()
    module = graphscale.load(pretrain).eval()
    images = torch.from_numpy(run(pretrain, 3, inner=True)[pretrain.graph.input[0].name])
    result = module(images)
    allowed = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=0, atol=allowed)
    result.square().sum().backward()
    assert [name for name, each in module.named_parameters() if each.grad is None] == []
    saved = ir.to_proto(graphscale.save(module))
    for name, weight in weights(pretrain).items():
        np.testing.assert_array_equal(weights(saved)[name], weight, err_msg=name)
