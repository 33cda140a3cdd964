"""The rules of ONNX operators for heights and widths, and how a rule is found.

One rule per operator family tells all that graphscale knows about it. To add an operator, write a
class with an `analyze` method in a file of `rules/` and register it:

    @register("Celu", "Elu")
    class _Activation(Rule):
        def analyze(self, node, analyzer):
            analyzer.keep(node)

`rules/resize.py` is a short example of a rule that changes sizes and writes them into its node.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphscale.passes.graph.weight_source import weight_source
from graphscale.passes.spatial.dimensions import Dims

if TYPE_CHECKING:
    from graphscale.passes.spatial.analysis import SpatialAnalysis
    from graphscale.passes.spatial.analyzer import Analyzer
    from graphscale.passes.spatial.rewriter import Rewriter


ShapeOf = Callable[[ir.Value], list[int]]


class Rule(ABC):
    """What one family of operators means for heights and widths.

    Attributes:
        weight_inputs: Which inputs can be the weight, the usual one first; empty for an operator
            that multiplies by no weight.
    """

    weight_inputs: tuple[int, ...] = ()

    @abstractmethod
    def analyze(self, node: ir.Node, analyzer: Analyzer) -> None:
        """Record the dimensions of the node's outputs, its mappings and its weights.

        Raises:
            GraphScaleError: the node uses heights or widths in a way that cannot be followed.
        """

    def write(self, node: ir.Node, rewriter: Rewriter) -> None:  # noqa: B027 (few rules need it)
        """Change the node's attributes and constant inputs to those of the pre-train network."""


class ProductRule(Rule):
    """A rule of an operator that multiplies by a weight: a convolution or a matrix product.

    Attributes:
        bias_input: Which input is added to the products; None where none is.
    """

    bias_input: int | None = None

    def weight_input(self, node: ir.Node) -> int | None:
        """Which input is the weight; None for a product of two computed tensors."""
        return next(iter(self._held(node)), None)

    def trained_inputs(self, node: ir.Node) -> list[int]:
        """All inputs that are weights: one, but for an operator that multiplies by several."""
        index = self.weight_input(node)
        return [] if index is None else [index]

    def _held(self, node: ir.Node) -> list[int]:
        inputs = [i for i in self.weight_inputs if i < len(node.inputs)]
        return [i for i in inputs if weight_source(node.inputs[i]) is not None]

    @abstractmethod
    def fan_in(self, node: ir.Node, index: int, shape: list[int]) -> int:
        """How many products a sum has, for a weight of `shape` at this input (He et al. 2015)."""


class ConvolutionRule(ProductRule):
    """A rule of an operator whose second input is a kernel that a smaller one can replace.

    Attributes:
        why_kept: Why no smaller one can replace it after all; None where one can.
    """

    weight_inputs = (1,)
    bias_input = 2
    why_kept: str | None = None

    @abstractmethod
    def visited(self, node: ir.Node, analysis: SpatialAnalysis) -> Dims:
        """The map at whose every pixel the kernel is multiplied with once (Eq. 3)."""


class MatrixProductRule(ProductRule):
    """A rule of an operator that multiplies matrices: a fully-connected layer, or attention."""

    weight_inputs = (1, 0)

    @abstractmethod
    def multiplications(self, node: ir.Node, shape: ShapeOf) -> int:
        """How often a node with a weight multiplies for one image (Eq. 3).

        `shape` gives the shapes of the node's inputs and outputs in one of the networks, but of its
        weight always the target's.
        """


_RULES: dict[tuple[str, str], Rule] = {}


def register(*operators: str, domain: str = "") -> Callable[[type[Rule]], type[Rule]]:
    """Make a class the rule of these operators of one domain ("" is ONNX's own)."""

    def add(rule: type[Rule]) -> type[Rule]:
        one = rule()
        for operator in operators:
            if (domain, operator) in _RULES:
                raise ValueError(f"operator {domain}.{operator} has two rules")
            _RULES[domain, operator] = one
        return rule

    return add


def find_rule(node: ir.Node) -> Rule | None:
    """The rule of a node's operator, if there is one."""
    return _RULES.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


def product_rule(node: ir.Node) -> ProductRule | None:
    """The rule of a node that is a convolution or a matrix product; None for all other nodes."""
    rule = find_rule(node)
    return rule if isinstance(rule, ProductRule) else None


def convolution_rule(node: ir.Node) -> ConvolutionRule | None:
    """The rule of a node that is a convolution of some kind; None for all other nodes."""
    rule = find_rule(node)
    return rule if isinstance(rule, ConvolutionRule) else None


def registered_operators() -> frozenset[tuple[str, str]]:
    """(domain, operator) of every operator that has a rule."""
    return frozenset(_RULES)
