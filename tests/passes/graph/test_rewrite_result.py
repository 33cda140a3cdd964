"""A rewrite that names nothing has modified nothing."""

from __future__ import annotations

import onnx_ir as ir

from graphscale.passes.graph.rewrite_result import RewriteResult


class _Rename(ir.passes.InPlacePass):
    """A pass of onnx-ir's that returns our result."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def call(self, model: ir.Model) -> RewriteResult:
        return RewriteResult.of(model, self.names)


def empty() -> ir.Model:
    return ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}), ir_version=10)


def test_names_decide_whether_the_model_was_modified() -> None:
    model = empty()
    changed = RewriteResult.of(model, ("b", "a"))
    assert (changed.model, changed.modified, changed.names) == (model, True, ["b", "a"])
    same = RewriteResult.of(model, [])
    assert (same.modified, same.names) == (False, [])


def test_onnx_irs_passes_return_it() -> None:
    found = _Rename(("node",))(empty())
    assert isinstance(found, RewriteResult)
    assert (found.modified, found.names) == (True, ["node"])
