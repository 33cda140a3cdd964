"""What a rewriting pass returns: the model, whether it was changed, and what was changed in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir


@dataclass
class RewriteResult(ir.passes.PassResult):
    """A PassResult that names what the pass changed.

    Attributes:
        names: Nodes or weights, as the pass's description says, in the order of the graph.
    """

    names: list[str]

    @classmethod
    def of(cls, model: ir.Model, names: Sequence[str]) -> RewriteResult:
        """The result of a pass that changed `names`, or nothing where there are none."""
        return cls(model, bool(names), list(names))
