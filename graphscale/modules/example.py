"""The example input with which a module is traced.

In: what the user gave, a tensor, a tuple of arguments or a dict of keyword arguments. Out: an
`Example`, which holds args and kwargs for a call, and makes variants with other tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphscale.core.errors import GraphScaleError


class Example:
    """The arguments of one call of a module.

    Args:
        given: A tensor, a tuple (or list) of arguments, or a mapping of keyword arguments.

    Raises:
        GraphScaleError: it holds no tensor.
    """

    def __init__(self, given: Any) -> None:
        self.kwargs = dict(given) if isinstance(given, Mapping) else {}
        if isinstance(given, list | tuple):
            self.args = tuple(given)
        else:
            self.args = () if isinstance(given, Mapping) else (given,)
        if not self.tensors:
            raise GraphScaleError(
                "shrinking a torch module needs an example_input: a tensor of the target's size, "
                "a tuple of arguments, or a dict of keyword arguments"
            )

    @staticmethod
    def holds_tensors(value: Any) -> bool:
        """Whether there is a tensor in a (nested) value."""
        return any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors, in the order of the graph's inputs."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Example:
        """The example with each tensor replaced by function(tensor)."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, function, (self.args, self.kwargs))
        return Example(kwargs or args)

    def batched(self) -> Example:
        """The example with two images where it has one, which torch.export takes for constant."""
        if all(each.shape[:1] == (1,) for each in self.tensors):
            return self.map(lambda each: torch.cat([each, each]))
        return self

    def first_images(self, count: int) -> Example:
        """The example with at most the first `count` images of every tensor."""
        return self.map(lambda each: each[:count] if each.ndim else each)

    def symbolic_batch(self) -> Any:
        """torch.export's `dynamic_shapes` that make the first axis of every tensor symbolic."""
        batch = torch.export.Dim("batch")

        def describe(leaf: Any) -> Any:
            return {0: batch} if isinstance(leaf, torch.Tensor) and leaf.ndim else None

        return pytree.tree_map(describe, self.kwargs or self.args)

    def batch_name(self) -> Any:
        """torch.onnx.export's `dynamic_shapes` that name the first axis of a program 'batch'.

        The first tensor alone is named, since all tensors share the axis.
        """
        names = iter([{0: "batch"}])

        def describe(leaf: Any) -> Any:
            named = isinstance(leaf, torch.Tensor) and leaf.ndim
            return next(names, None) if named else None

        return pytree.tree_map(describe, self.kwargs or self.args)
