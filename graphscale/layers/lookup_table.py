"""Lookup tables, which read rows of a trained table by index (fbcunn LookupTableGPU).

Integer indices go in, the rows of the table that they name come out; `WeightedLookupTable` also
multiplies each row by a number of its own. The file holds their operators with ONNX function
bodies, the derivatives, which may be sparse tensors, and the modules.
"""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphscale.core.arguments import positive_number, real_number, whole_number
from graphscale.layers.autograd import register_autocast, register_derivatives, widest_type
from graphscale.layers.operator import Operator, is_transformed

_NO_PADDING = -1
# With fewer numbers in the table and in the rows that are read, torch's embedding is faster in
# training: a call of it costs less, and its dense gradient is still small.
_MAX_NUMBERS_FOR_TORCH = 1 << 18

lookup_table = Operator(
    "LookupTable",
    "(Tensor weight, Tensor indices, int padding_idx=-1) -> Tensor",
    lambda weight, indices, padding_idx=-1: weight.new_empty(*indices.shape, weight.shape[1]),
    """
    <padding_idx: int = -1>(weight, indices) => (y) {
        padding = Constant <value_int: int = @padding_idx> ()
        nought = Constant <value_int = 0> ()
        last = Constant <value_ints = [-1]> ()
        is_padding = Equal (indices, padding)
        safe = Where (is_padding, nought, indices)
        rows = Gather <axis = 0> (weight, safe)
        mask = Unsqueeze (is_padding, last)
        zero = Constant <value_float = 0.0> ()
        empty = CastLike (zero, weight)
        y = Where (mask, empty, rows)
    }
    """,
)

# Adds the rows of grad up by index. The weighted table fills `input` with one more input, and
# `scaled` with the nodes that multiply grad by it.
_GRAD_BODY = """
    <padding_idx: int = -1>(grad, indices, {input}weight) => (grad_weight) {{
        padding = Constant <value_int: int = @padding_idx> ()
        nought = Constant <value_int = 0> ()
        last = Constant <value_ints = [-1]> ()
        zero_float = Constant <value_float = 0.0> ()
        zero = CastLike (zero_float, weight)
        {scaled}
        is_padding = Equal (indices, padding)
        mask = Unsqueeze (is_padding, last)
        counted = Where (mask, zero, scaled)
        safe = Where (is_padding, nought, indices)
        shape = Shape (weight)
        width = Gather <axis = 0> (shape, last)
        row_shape = Concat <axis = 0> (last, width)
        rows = Reshape (counted, row_shape)
        column_shape = Constant <value_ints = [-1, 1]> ()
        column = Reshape (safe, column_shape)
        rows_shape = Shape (rows)
        places = Expand (column, rows_shape)
        empty = Expand (zero, shape)
        grad_weight = ScatterElements <axis = 0, reduction = "add"> (empty, places, rows)
    }}
"""

lookup_table_grad = Operator(
    "LookupTableGrad",
    "(Tensor grad, Tensor indices, Tensor weight, int padding_idx=-1) -> Tensor",
    lambda grad, indices, weight, padding_idx=-1: weight.new_empty(weight.shape),
    _GRAD_BODY.format(input="", scaled="scaled = Identity (grad)"),
)

weighted_lookup_table = Operator(
    "WeightedLookupTable",
    "(Tensor weight, Tensor indices, Tensor row_weights, int padding_idx=-1) -> Tensor",
    lambda weight, indices, row_weights, padding_idx=-1: weight.new_empty(
        *indices.shape, weight.shape[1]
    ),
    """
    <padding_idx: int = -1>(weight, indices, row_weights) => (y) {
        rows = graphscale.LookupTable <padding_idx: int = @padding_idx> (weight, indices)
        last = Constant <value_ints = [-1]> ()
        factors = Unsqueeze (row_weights, last)
        y = Mul (rows, factors)
    }
    """,
)

weighted_lookup_table_grad = Operator(
    "WeightedLookupTableGrad",
    "(Tensor grad, Tensor indices, Tensor row_weights, Tensor weight, int padding_idx=-1)"
    " -> Tensor",
    lambda grad, indices, row_weights, weight, padding_idx=-1: weight.new_empty(weight.shape),
    _GRAD_BODY.format(
        input="row_weights, ",
        scaled="factors = Unsqueeze (row_weights, last)\n        scaled = Mul (grad, factors)",
    ),
)


def _rows_in_torch(weight: Tensor, indices: Tensor, padding_idx: int) -> Tensor:
    is_padding = indices == padding_idx
    rows = functional.embedding(torch.where(is_padding, 0, indices), weight)
    return torch.where(is_padding[..., None], 0, rows)


def _gradient_in_torch(grad: Tensor, indices: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
    is_padding = indices == padding_idx
    rows = torch.where(is_padding[..., None], 0, grad).flatten(0, -2)
    places = torch.where(is_padding, 0, indices).flatten()
    return rows.new_zeros(weight.shape).index_add(0, places, rows)


def _weighted_rows_in_torch(
    weight: Tensor, indices: Tensor, row_weights: Tensor, padding_idx: int
) -> Tensor:
    return _rows_in_torch(weight, indices, padding_idx) * row_weights[..., None]


def _weighted_gradient_in_torch(
    grad: Tensor, indices: Tensor, row_weights: Tensor, weight: Tensor, padding_idx: int
) -> Tensor:
    return _gradient_in_torch(grad * row_weights[..., None], indices, weight, padding_idx)


def _setup_context(ctx, inputs, output) -> None:
    weight, indices, ctx.padding_idx = inputs
    ctx.save_for_backward(weight, indices)


def _backward(ctx, grad: Tensor):
    weight, indices = ctx.saved_tensors
    return lookup_table_grad(grad, indices, weight, ctx.padding_idx), None, None


def _setup_context_weighted(ctx, inputs, output) -> None:
    weight, indices, row_weights, ctx.padding_idx = inputs
    ctx.save_for_backward(weight, indices, row_weights)


def _backward_weighted(ctx, grad: Tensor):
    weight, indices, row_weights = ctx.saved_tensors
    grad_weight = grad_row_weights = None
    if ctx.needs_input_grad[0]:
        grad_weight = weighted_lookup_table_grad(
            grad, indices, row_weights, weight, ctx.padding_idx
        )
    if ctx.needs_input_grad[2]:
        grad_row_weights = (grad * lookup_table(weight, indices, ctx.padding_idx)).sum(-1)
    return grad_weight, None, grad_row_weights, None


# The gradient operators are linear in grad and, in the weighted table, in row_weights; so their own
# derivatives read rows of `grad_weight`, as the forward pass reads rows of the table.
def _setup_context_gradient(ctx, inputs, output) -> None:
    _, indices, _, ctx.padding_idx = inputs
    ctx.save_for_backward(indices)


def _backward_gradient(ctx, grad_weight: Tensor):
    (indices,) = ctx.saved_tensors
    return lookup_table(grad_weight, indices, ctx.padding_idx), None, None, None


def _setup_context_weighted_gradient(ctx, inputs, output) -> None:
    grad, indices, row_weights, _, ctx.padding_idx = inputs
    ctx.save_for_backward(grad, indices, row_weights)


def _backward_weighted_gradient(ctx, grad_weight: Tensor):
    grad, indices, row_weights = ctx.saved_tensors
    rows = lookup_table(grad_weight, indices, ctx.padding_idx)
    return rows * row_weights[..., None], None, (grad * rows).sum(-1), None, None


register_derivatives(lookup_table, _rows_in_torch, _backward, _setup_context)
register_derivatives(
    lookup_table_grad, _gradient_in_torch, _backward_gradient, _setup_context_gradient
)
register_derivatives(
    weighted_lookup_table, _weighted_rows_in_torch, _backward_weighted, _setup_context_weighted
)
register_derivatives(
    weighted_lookup_table_grad,
    _weighted_gradient_in_torch,
    _backward_weighted_gradient,
    _setup_context_weighted_gradient,
)
for _operator in (lookup_table_grad, weighted_lookup_table, weighted_lookup_table_grad):
    register_autocast(_operator, widest_type)


class _SparseLookup(torch.autograd.Function):
    """LookupTable whose gradient is a sparse tensor: one row per index, not added up."""

    @staticmethod
    def forward(ctx, weight: Tensor, indices: Tensor, padding_idx: int) -> Tensor:
        ctx.save_for_backward(weight, indices)
        ctx.padding_idx = padding_idx
        return lookup_table(weight, indices, padding_idx)

    @staticmethod
    def backward(ctx, grad: Tensor):
        weight, indices = ctx.saved_tensors
        if indices.is_cuda:
            # The CUDA kernel reports no error for an index outside the table. Such an index gets
            # no gradient, as in the dense case.
            wrong = (indices == ctx.padding_idx) | (indices < 0) | (indices >= weight.shape[0])
            rows = indices.masked_fill(wrong, 0).flatten()
            values = grad.masked_fill(wrong[..., None], 0).reshape(-1, grad.shape[-1])
        elif ctx.padding_idx == _NO_PADDING:
            rows, values = indices.flatten(), grad.reshape(-1, grad.shape[-1])
        else:
            used = indices != ctx.padding_idx
            rows, values = indices[used], grad[used]
        sparse = torch.sparse_coo_tensor(
            rows[None], values, weight.shape, check_invariants=False, is_coalesced=False
        )
        return sparse, None, None


class LookupTable(nn.Module):
    """Rows of a table by index (fbcunn LookupTableGPU), as a drop-in for ``torch.nn.Embedding``.

    Indices are integers [...]; the result is [..., embedding_dim] of the table's type: float32,
    float64, float16 or bfloat16. The state dict is ``torch.nn.Embedding``'s.

    Args:
        num_embeddings, embedding_dim: Rows and columns of the table ``weight``.
        padding_idx: The index whose row is zero and gets no gradient; negative ones count from the
            end.
        max_norm, norm_type: Rows with a larger norm are shortened to ``max_norm`` when they are
            read, in the table too.
        sparse: The gradient is a sparse tensor with one row per index, not coalesced.
        features_first: Indices [N, L] give [N, embedding_dim, L] (fbcunn's featuresInDim2).

    Raises:
        GraphScaleError: ``padding_idx`` or, on a CPU, an index is not in the table. On a GPU such
            an index gives a row of not-a-number.

    Example:
        >>> LookupTable(50_000, 128)(torch.tensor([[1, 2], [3, 4]])).shape
        torch.Size([2, 2, 128])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        sparse: bool = False,
        features_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        num_embeddings = whole_number(f"{name}: num_embeddings", num_embeddings, 0)
        embedding_dim = whole_number(f"{name}: embedding_dim", embedding_dim, 0)
        if padding_idx is not None:
            first, last = -num_embeddings, num_embeddings - 1
            padding_idx = whole_number(f"{name}: padding_idx", padding_idx, first, last)
        if max_norm is not None:
            max_norm = real_number(f"{name}: max_norm", max_norm, 0)
        if not (isinstance(norm_type, float) and norm_type == math.inf):
            norm_type = positive_number(f"{name}: norm_type", norm_type)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.sparse = sparse
        self.features_first = features_first
        self.weight = nn.Parameter(
            torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table from a normal distribution; the padding row is zero."""
        nn.init.normal_(self.weight)
        if self.padding_idx is not None:
            with torch.no_grad():
                self.weight[self.padding_idx].zero_()

    def forward(self, indices: Tensor) -> Tensor:
        """Read the rows of integer ``indices`` [...]: [..., embedding_dim]."""
        y = self._rows(indices.long())
        return y.mT if self.features_first else y

    def _rows(self, indices: Tensor) -> Tensor:
        padding = _NO_PADDING if self.padding_idx is None else self.padding_idx
        if torch.compiler.is_exporting():
            return self._shortened(lookup_table(self.weight, indices, padding))
        if self.max_norm is not None:
            # Called for its side effect: it shortens the rows in the table. The operator, below,
            # names an index that is not there.
            with torch.no_grad(), contextlib.suppress(IndexError):
                functional.embedding(indices, self.weight, None, self.max_norm, self.norm_type)
        sparse = self.sparse and not is_transformed()  # torch.func needs dense gradients
        if self._torch_is_faster(indices):
            try:
                return functional.embedding(indices, self.weight, sparse=sparse)
            except IndexError:
                pass  # graphscale's operator, below, names the index
        if sparse and torch.is_grad_enabled():
            return _SparseLookup.apply(self.weight, indices, padding)
        return lookup_table(self.weight, indices, padding)

    def _torch_is_faster(self, indices: Tensor) -> bool:
        """Whether torch's embedding serves this call: it starts sooner, but its dense gradient
        touches more memory than graphscale's.
        """
        if self.padding_idx is not None or not indices.is_cpu or torch.compiler.is_compiling():
            return False
        if self.sparse or not (torch.is_grad_enabled() and self.weight.requires_grad):
            return True
        return self.weight.numel() + indices.numel() * self.embedding_dim < _MAX_NUMBERS_FOR_TORCH

    def _shortened(self, rows: Tensor) -> Tensor:
        """``rows`` shortened to ``max_norm``, for export: an exported model leaves its table."""
        if self.max_norm is None:
            return rows
        norm = torch.linalg.vector_norm(rows, self.norm_type, dim=-1, keepdim=True)
        return rows * (self.max_norm / (norm + 1e-7)).clamp(max=1.0)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}"


class WeightedLookupTable(LookupTable):
    """Rows of a table, each times a number of its own (fbcunn WeightedLookupTable).

    Integer indices [...] and row_weights [...] give [..., embedding_dim], of one type of float32,
    float64, float16 and bfloat16. Gradients go to the table and to ``row_weights``. Arguments and
    state dict are those of `LookupTable`, without ``max_norm`` and ``sparse``.

    Raises:
        GraphScaleError: as `LookupTable`; or the shapes of indices and row_weights differ.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        features_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            features_first=features_first,
            device=device,
            dtype=dtype,
        )

    def forward(self, indices: Tensor, row_weights: Tensor) -> Tensor:
        """Read the rows of ``indices`` [...] and multiply them by ``row_weights`` [...]."""
        padding = _NO_PADDING if self.padding_idx is None else self.padding_idx
        y = weighted_lookup_table(self.weight, indices.long(), row_weights, padding)
        return y.mT if self.features_first else y
