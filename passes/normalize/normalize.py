"""Bring a model into the form that shrink, grow, load and accelerate expect.

    model = load_model(path)         # sparse weights are dense, the domain ai.onnx is ""
    form = normalize(model)          # in place

Afterwards the model calls no functions except graphscale's own operators, its open sizes are
symbolic, and each node has a name. Weights keep their names. `forget_given_names` removes the
nodes' new names before a model is written; the target that the plan carries never has them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from graphscale.core.node_names import name_nodes
from graphscale.passes.normalize.inline_functions import InlineFunctions
from graphscale.passes.normalize.open_dimensions import OpenDimensions


@dataclass(frozen=True)
class NormalForm:
    """What was changed.

    Attributes:
        inlined: Functions whose bodies stand in the place of their calls, as 'domain.Name'.
        opened: Tensors with sizes below 0, which are symbolic now.
        named: Nodes that had no name.
    """

    inlined: tuple[str, ...]
    opened: tuple[str, ...]
    named: tuple[str, ...]


def normalize(model: ir.Model, keep: Collection[tuple[str, str]] = ()) -> NormalForm:
    """Bring `model` into the normal form, in place.

    Args:
        keep: (domain, name) of functions that the caller knows as operators.

    Raises:
        GraphScaleError: an input has a size of 0, or a function cannot be inlined.
    """
    inlined = InlineFunctions(keep)(model).names
    opened = OpenDimensions()(model).names
    return NormalForm(tuple(inlined), tuple(opened), tuple(name_nodes(model)))
