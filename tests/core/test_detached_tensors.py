"""Large tensors leave a model while it is serialized, and come back whatever happens."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphscale.core.detached_tensors import detached, node_tensors

LARGE, SMALL = np.arange(256, dtype=np.float32), np.arange(255, dtype=np.float32)  # 1024, 1020 B


def model() -> ir.Model:
    """Weights in the graph, in a Constant node of a branch of an If, and in a function."""
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (bool c, float[256] x) => (float[256] y) {
            b = If (c) <then_branch = t () => (float[256] p) { p = Identity (x) },
                        else_branch = e () => (float[256] q) { q = Identity (x) }>
            z = Add (b, large)
            s = Slice (z, small, small)
            y = own.F (z)
        }
        <domain: "own", opset_import: ["" : 17]>
        F (u) => (v) { v = Identity (u) }
    """)
    for name, array in (("large", LARGE), ("small", SMALL)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    constant = onnx.helper.make_node(
        "Constant", [], ["k"], value=onnx.numpy_helper.from_array(2 * LARGE)
    )
    branch = next(a.g for a in proto.graph.node[0].attribute if a.name == "else_branch")
    branch.node.insert(0, constant)
    constant.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(3 * LARGE))
    proto.functions[0].node.insert(0, constant)
    return ir.from_proto(proto)


def test_tensors_of_nodes_in_branches_and_functions() -> None:
    loaded = model()
    (in_branch,) = node_tensors(loaded.graph)
    node, name, attribute = in_branch
    assert (node.op_type, name) == ("Constant", "value")
    assert attribute.value.numpy()[1] == 2
    ((_, _, in_function),) = node_tensors(*loaded.functions.values())
    assert in_function.value.numpy()[1] == 3


def test_large_tensors_are_references_inside_the_block_and_themselves_after() -> None:
    loaded = model()
    before = ir.to_proto(loaded).SerializeToString()
    with detached(loaded, "weights.bin", [0, 4096, 8192]) as tensors:
        light = ir.to_proto(loaded)
    assert [tensor.numpy()[1] for tensor in tensors] == [1, 2, 3]
    assert len(light.SerializeToString()) < len(before) - 2 * LARGE.nbytes
    stored = {each.name: each for each in light.graph.initializer}
    entries = {each.key: each.value for each in stored["large"].external_data}
    assert entries == {"location": "weights.bin", "offset": "0", "length": "1024"}
    assert stored["small"].data_location == onnx.TensorProto.DEFAULT
    assert ir.to_proto(loaded).SerializeToString() == before


def test_offsets_count_the_tensors_where_none_are_given() -> None:
    loaded = model()
    with detached(loaded, "here"):
        found = loaded.graph.initializers["large"].const_value
        (_, _, attribute), *_ = node_tensors(loaded.graph)
        assert (found.offset, attribute.value.offset) == (0, 1)


def test_an_error_inside_the_block_restores_the_model() -> None:
    loaded = model()
    before = ir.to_proto(loaded).SerializeToString()
    with pytest.raises(OSError, match="full"), detached(loaded, "here"):
        raise OSError("full")
    assert ir.to_proto(loaded).SerializeToString() == before
