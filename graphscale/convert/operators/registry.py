"""The table of operators: what each ONNX operator is in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Operator:
    """How one ONNX operator becomes torch.

    Attributes:
        function: `function(node, *inputs)` returns the output, or a tuple of the outputs. It is
            plain torch code; `node` is a `convert.node.Node`. Omitted optional inputs are
            None or left out.
        numbers: Positions of inputs that arrive as Python numbers or (nested) lists of them, such
            as Reshape's target. They must be known without running the network.
        weights: Positions of inputs that hold trainable weights.
        terms: Positions of inputs that hold weights if they have more than one element, such as
            Add's bias. A single number there is a constant (a GELU's 0.5).
        statistics: Positions of inputs that hold running statistics.
        shape_only: The operator reads only its inputs' shapes.
    """

    function: Callable
    numbers: Sequence[int] = ()
    weights: Sequence[int] = ()
    terms: Sequence[int] = ()
    statistics: Sequence[int] = ()
    shape_only: bool = False


OPERATORS: dict[tuple[str, str], Operator] = {}
"""(domain, operator) -> its entry. ONNX's own domain is ''."""


def operator(*names: str, domain: str = "", **slots) -> Callable[[Callable], Callable]:
    """Enter a function into the table under each of `names`; `slots` as in `Operator`.

    Another domain's operator is one such line: `operator("FFTConv", domain="graphscale",
    weights=(1, 2))(lambda node, x, w, b=None: ...)`.
    """

    def enter(function: Callable) -> Callable:
        for name in names:
            OPERATORS[domain, name] = Operator(function, **slots)
        return function

    return enter
