"""ONNX models that torch does not write: other exporters' habits, old opsets, stored weights."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OLDEST_OPSET = 7
NEWEST_OPSET = 26  # the newest that onnxruntime 1.31 runs


class Graph:
    """Collects nodes and weights; every method that adds a node returns its output's name."""

    def __init__(self, opset: int = 17):
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(7)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def normal(self, name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 400
        value = self.random.standard_normal(shape) * np.sqrt(2 / fan_in)
        return self.constant(name, value.astype(np.float32))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        names = [f"{name}_out{i or ''}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names[0]

    def conv(self, x: str, cin: int, cout: int, *kernel: int, **attributes: object) -> str:
        name = f"conv_{len(self.nodes)}"
        groups = attributes.get("group", 1)
        weight = self.normal(f"{name}.weight", cout, cin // groups, *kernel)
        bias = self.normal(f"{name}.bias", cout)
        return self.op("Conv", x, weight, bias, kernel_shape=list(kernel), **attributes)

    def norm(self, x: str, channels: int) -> str:
        name = f"norm_{len(self.nodes)}"
        values = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}
        noise = {k: v + 0.2 * self.random.random(channels) for k, v in values.items()}
        inputs = [self.constant(f"{name}.{k}", v.astype(np.float32)) for k, v in noise.items()]
        return self.op("BatchNormalization", x, *inputs)

    def linear(self, x: str, rows: int, columns: int) -> str:
        """MatMul and Add, as TensorFlow has it."""
        name = f"dense_{len(self.nodes)}"
        weight = self.normal(f"{name}.kernel", columns, rows)
        self.weights[-1].CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(self.weights[-1]).T.copy(), weight)
        )
        return self.op("Add", self.op("MatMul", x, weight), self.normal(f"{name}.bias", columns))

    def gemm(self, x: str, rows: int, columns: int) -> str:
        name = f"fc_{len(self.nodes)}"
        weight = self.normal(f"{name}.weight", columns, rows)
        return self.op("Gemm", x, weight, self.normal(f"{name}.bias", columns), transB=1)

    def model(self, shape: list, output: str, output_shape: list | None = None):
        """The checked model; without output_shape, shape inference must find it."""
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)]
        graph = helper.make_graph(self.nodes, "handmade", [image], results, self.weights)
        imports = [helper.make_opsetid("", self.opset)]
        version = 3 if self.opset < 9 else helper.find_min_ir_version_for(imports)
        if version == 3:  # before version 4, initializers had to be inputs as well
            for weight in self.weights:
                dims = list(weight.dims)
                graph.input.append(
                    helper.make_tensor_value_info(weight.name, weight.data_type, dims)
                )
        model = helper.make_model(graph, opset_imports=imports, ir_version=version)
        if output_shape is None:
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
            model.graph.output[0].CopyFrom(inferred.graph.output[0])
        onnx.checker.check_model(model, full_check=True)
        return model


def tensorflow(flatten: bool = False, valid: bool = False) -> onnx.ModelProto:
    """Pictures in NHWC, Transposes, auto_pad; the head averages, or flattens in NHWC order."""
    g = Graph()
    auto = "VALID" if valid else "SAME_UPPER"
    x = g.op("Transpose", "image", perm=[0, 3, 1, 2])
    x = g.op("Relu", g.conv(x, 3, 16, 7, 7, strides=[2, 2], auto_pad=auto))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], auto_pad=auto)
    x = g.op("Relu", g.norm(g.conv(x, 16, 24, 5, 5, auto_pad=auto), 24))
    y = g.op("Relu", g.conv(x, 24, 24, 3, 3, auto_pad="SAME_UPPER"))
    y = g.conv(y, 24, 24, 3, 3, auto_pad="SAME_LOWER")
    x = g.op("Relu", g.op("Add", x, y))
    x = g.conv(x, 24, 24, 3, 3, strides=[2, 2], group=24, auto_pad=auto)
    x = g.op("Relu", g.conv(x, 24, 32, 1, 1, auto_pad="VALID"))
    x = g.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
    x = g.op("Transpose", x, perm=[0, 2, 3, 1])
    if flatten:
        extent = 5 if valid else 7
        rows = 32 * extent * extent
        x = g.op("Reshape", x, g.constant("flat_shape", np.array([-1, rows])))
        x = g.op("Relu", g.linear(x, rows, 64))
        x = g.linear(x, 64, 10)
    else:
        x = g.linear(g.op("ReduceMean", x, axes=[1, 2], keepdims=0), 32, 10)
    return g.model(["batch", 112, 112, 3], g.op("Softmax", x, axis=-1))


def asymmetric_pads() -> onnx.ModelProto:
    """Pads that differ from side to side, a Pad node before a convolution, ceil_mode."""
    g = Graph()
    pads = g.constant("pads", np.array([0, 0, 1, 2, 0, 0, 2, 1]))
    x = g.op("Pad", "image", pads)
    x = g.op("Relu", g.conv(x, 3, 16, 5, 5, strides=[2, 2]))
    x = g.op("Relu", g.conv(x, 16, 16, 3, 3, pads=[0, 0, 2, 2]))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    y = g.op("Relu", g.conv(x, 16, 16, 3, 3, pads=[2, 0, 0, 2]))
    x = g.op("Add", x, g.conv(y, 16, 16, 2, 2, pads=[0, 1, 1, 0]))
    x = g.conv(x, 16, 32, 4, 4, strides=[2, 2], pads=[1, 1, 1, 1])
    x = g.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    return g.model(["batch", 3, 96, 96], g.gemm(x, 32, 10))


def classic(opset: int) -> onnx.ModelProto:
    """A small residual net with a Gemm on its map, in any opset from 7 on."""
    g = Graph(opset)
    x = g.op("Relu", g.norm(g.conv("image", 3, 16, 5, 5, strides=[2, 2], pads=[2] * 4), 16))
    x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = g.op("Relu", g.norm(g.conv(x, 16, 16, 3, 3, pads=[1] * 4), 16))
    y = g.norm(g.conv(y, 16, 16, 3, 3, pads=[1] * 4), 16)
    x = g.op("Relu", g.op("Add", x, y))
    x = g.conv(x, 16, 16, 3, 3, strides=[2, 2], pads=[1] * 4, group=16)
    x = g.op("Dropout", x, **({"ratio": 0.5} if opset < 12 else {}))
    x = g.op("Reshape", x, g.constant("flat_shape", np.array([0, 16 * 64])))
    x = g.op("Relu", g.gemm(x, 16 * 64, 32))
    return g.model(["batch", 3, 64, 64], g.gemm(x, 32, 10))


def upsample(opset: int) -> onnx.ModelProto:
    """An encoder and decoder whose up-sampling is Upsample (7, 9) or Resize (10, 11 and later)."""
    g = Graph(opset)
    x = g.op("Relu", g.conv("image", 3, 8, 3, 3, pads=[1] * 4))
    y = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = g.op("Relu", g.conv(y, 8, 8, 5, 5, pads=[2] * 4))
    scales = [1.0, 1.0, 2.0, 2.0]
    if opset < 9:
        y = g.op("Upsample", y, scales=scales, mode="nearest")
    else:
        wanted = g.constant("scales", np.array(scales, np.float32))
        kind = "Upsample" if opset == 9 else "Resize"
        region = [g.constant("roi", np.zeros(0, np.float32))] if opset > 10 else []
        y = g.op(kind, y, *region, wanted, mode="nearest")
    x = g.op("Concat", x, y, axis=1)
    return g.model(["batch", 3, 64, 64], g.conv(x, 16, 4, 3, 3, pads=[1] * 4))


def dynamic_flatten(transposed: bool = True) -> onnx.ModelProto:
    """`x.view(x.size(0), -1)` as it was traced once: Shape, Gather, Concat, Reshape; then Gemm."""
    g = Graph(11)
    x = g.op("Relu", g.conv("image", 3, 16, 7, 7, strides=[2, 2], pads=[3] * 4))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    x = g.op("Relu", g.conv(x, 16, 16, 3, 3, pads=[1] * 4))
    x = g.op("AveragePool", x, kernel_shape=[4, 4], strides=[4, 4])
    count = g.op("Gather", g.op("Shape", x), g.constant("zero", np.array(0)), axis=0)
    count = g.op("Unsqueeze", count, axes=[0])
    shape = g.op("Concat", count, g.constant("rest", np.array([-1])), axis=0)
    x = g.op("Reshape", x, shape)
    if transposed:
        return g.model(["batch", 3, 96, 96], g.gemm(x, 16 * 36, 10), ["batch", 10])
    weight = g.normal("fc.weight", 16 * 36, 10)
    x = g.op("Gemm", x, weight, g.normal("fc.bias", 10))
    return g.model(["batch", 3, 96, 96], x, ["batch", 10])


def convolutional_classifier() -> onnx.ModelProto:
    """The fully-connected layer is a convolution as large as its map; dilated ones before it."""
    g = Graph()
    x = g.op("Relu", g.conv("image", 3, 16, 9, 9, strides=[4, 4], pads=[4] * 4))
    x = g.op("Relu", g.conv(x, 16, 16, 3, 3, dilations=[2, 2], pads=[2] * 4))
    x = g.op("Relu", g.conv(x, 16, 16, 3, 3, dilations=[3, 3], pads=[3] * 4))
    x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g.op("Relu", g.conv(x, 16, 16, 1, 7, pads=[0, 3, 0, 3]))
    x = g.op("Relu", g.conv(x, 16, 16, 7, 1, pads=[3, 0, 3, 0]))
    x = g.op("Relu", g.conv(x, 16, 64, 12, 12))
    return g.model(["batch", 3, 96, 96], g.op("Flatten", g.conv(x, 64, 10, 1, 1)))


def shared_weights(through_identity: bool = False) -> onnx.ModelProto:
    """One kernel in two convolutions, directly or through an Identity of the initializer."""
    g = Graph()
    x = g.op("Relu", g.conv("image", 3, 16, 5, 5, strides=[2, 2], pads=[2] * 4))
    kernel = g.normal("shared.weight", 16, 16, 3, 3)
    again = g.op("Identity", kernel) if through_identity else kernel
    x = g.op("Relu", g.op("Conv", x, kernel, pads=[1] * 4))
    x = g.op("Relu", g.op("Conv", x, again, pads=[1] * 4))
    x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g.op("Relu", g.op("Conv", x, kernel, pads=[1] * 4))
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    return g.model(["batch", 3, 64, 64], g.gemm(x, 16, 10))


def constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every initializer as a Constant node."""
    graph = model.graph
    nodes = [
        helper.make_node("Constant", [], [weight.name], name=f"make_{weight.name}", value=weight)
        for weight in graph.initializer
    ]
    nodes += list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def stored_as(model: onnx.ModelProto, dtype: type, elem_type: int) -> onnx.ModelProto:
    """The same model with its weights kept in a short type and cast to float32 where used."""
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        name = weight.name
        short = numpy_helper.to_array(weight).astype(dtype)
        weight.CopyFrom(numpy_helper.from_array(short, f"{name}.stored"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
        assert weight.data_type == elem_type
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model computed in float16 throughout."""
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(half, weight.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(model, full_check=True)
    return model


def save_with_external_data(model: onnx.ModelProto, folder: Path) -> Path:
    """Write model.onnx with its weights in model.onnx.data beside it; the path of the former."""
    path = folder / "model.onnx"
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
        convert_attribute=True,
    )
    return path


HANDMADE: dict[str, Callable[[], onnx.ModelProto]] = {
    "tensorflow_same": tensorflow,
    "tensorflow_valid": lambda: tensorflow(valid=True),
    "tensorflow_flatten": lambda: tensorflow(flatten=True),
    "tensorflow_flatten_valid": lambda: tensorflow(flatten=True, valid=True),
    "asymmetric_pads": asymmetric_pads,
    **{
        f"opset{version}": (lambda version=version: classic(version))
        for version in range(OLDEST_OPSET, NEWEST_OPSET + 1)
    },
    **{f"upsample_opset{v}": (lambda v=v: upsample(v)) for v in (7, 9, 10, 11, 13)},
    "dynamic_flatten": dynamic_flatten,
    "gemm_without_transpose": lambda: dynamic_flatten(transposed=False),
    "convolutional_classifier": convolutional_classifier,
    "shared_weights": shared_weights,
    "shared_through_identity": lambda: shared_weights(through_identity=True),
    "constant_nodes": lambda: constant_nodes(classic(17)),
    "float16": lambda: float16(classic(17)),
    "float16_stored": lambda: stored_as(classic(17), np.float16, TensorProto.FLOAT16),
    "bfloat16_stored": lambda: stored_as(classic(17), ml_dtypes.bfloat16, TensorProto.BFLOAT16),
}
