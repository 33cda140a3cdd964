"""The registry of translations: everything that `load` knows about an ONNX operator.

`translates` registers a function and the roles of the operator's inputs. No other file lists
operators by name, so a new operator needs one registration and its test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Translation:
    """How one ONNX operator becomes torch.

    Attributes:
        function: `function(node, *inputs)` returns the output, or a tuple of the outputs. It is
            plain torch code; `node` is a `convert.node.NodeView`. Omitted optional inputs are
            None or left out.
        numbers: Positions of inputs that are passed as Python numbers or (nested) lists of them,
            such as Reshape's target. They must be known without running the network.
        weights: Positions of inputs that hold trainable weights.
        terms: Positions of inputs that hold weights if they have more than one element, such as
            Add's bias. A single number there is a constant (a GELU's 0.5).
        statistics: Positions of inputs that hold running statistics.
        fixed: Positions of inputs that are never trained, such as the scales of a quantisation.
        shape_only: The operator reads only its inputs' shapes.
    """

    function: Callable
    numbers: Sequence[int] = ()
    weights: Sequence[int] = ()
    terms: Sequence[int] = ()
    statistics: Sequence[int] = ()
    fixed: Sequence[int] = ()
    shape_only: bool = False


TRANSLATIONS: dict[tuple[str, str], Translation] = {}
"""(domain, operator) -> its translation. ONNX's own domain is ''."""


def translates(*names: str, domain: str = "", **roles) -> Callable[[Callable], Callable]:
    """Register a function as the translation of each operator in `names`.

    Args:
        names: ONNX operators.
        domain: Their domain; ONNX's own is ''.
        roles: Of their inputs: `numbers`, `weights`, `terms`, `statistics`, `fixed`, `shape_only`,
            as in `Translation`.

    Returns:
        A decorator, which returns the function as it is.

    Example:
        >>> @translates("ScaledConv", domain="com.example", weights=(1, 2))       # doctest: +SKIP
        ... def _scaled_conv(node, x, w, b=None):
        ...     return F.conv2d(x, w, b) * node.attribute("scale", 1.0)
    """

    def enter(function: Callable) -> Callable:
        for name in names:
            TRANSLATIONS[domain, name] = Translation(function, **roles)
        return function

    return enter
