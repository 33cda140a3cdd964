"""Translations of graphscale's own operators: torch calls the same kernels as onnxruntime.

Which inputs are trained is read from the library's description of each operator, so a new operator
of the library needs no line here.
"""

from __future__ import annotations

from collections.abc import Callable

import graphscale.layers  # noqa: F401  its operators register themselves
from graphscale.convert.operators.registry import translates
from graphscale.core.operator_definition import DOMAIN
from graphscale.layers.library import trainable_inputs
from graphscale.layers.operator import OPERATORS, Operator


def _function(operator: Operator) -> Callable:
    """The translation that calls `operator` with a node's inputs and attributes."""

    def call(node, *inputs):
        given = {a.name: node.attribute(a.name) for a in operator.attributes}
        named = {name: value for name, value in given.items() if value is not None}
        return operator(*inputs, **named)

    return call


for _name, _operator in OPERATORS.items():
    translates(_name, domain=DOMAIN, weights=trainable_inputs(_name))(_function(_operator))
