"""graphscale's own operators: torch calls the same kernels as onnxruntime."""

from __future__ import annotations

from collections.abc import Callable

import graphscale.layers  # noqa: F401  its operators register themselves
from graphscale.convert.operators.registry import operator
from graphscale.layers.operator import DOMAIN
from graphscale.layers.operator import OPERATORS as LAYER_OPERATORS
from graphscale.layers.operator import Operator as LayerOperator

# Positions of trainable weights; operators that are not named have none.
_WEIGHTS = {
    "FFTConv": (1, 2),
    "LocallyConnected": (1,),
    "TemporalConv": (1, 2),
    "LookupTable": (0,),
    "WeightedLookupTable": (0,),
    "HierarchicalSoftmaxLoss": (2, 3, 4, 5),
    "HierarchicalSoftmaxLogProb": (1, 2, 3, 4),
    "HierarchicalSoftmaxTopK": (1, 2, 3, 4),
}


def _function(layer: LayerOperator) -> Callable:
    def call(node, *inputs):
        given = {a.name: node.attribute(a.name) for a in layer.attributes}
        named = {name: value for name, value in given.items() if value is not None}
        return layer(*inputs, **named)

    return call


for _name, _layer in LAYER_OPERATORS.items():
    operator(_name, domain=DOMAIN, weights=_WEIGHTS.get(_name, ()))(_function(_layer))
