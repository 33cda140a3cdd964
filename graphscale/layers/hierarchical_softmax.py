"""Two-level softmax over many classes: first a cluster, then a class in it (fbcunn HSM).

Features [N, D] and target classes [N] go in, the loss comes out; for inference, log-probabilities
of all classes or the best k. The file holds the operators with ONNX function bodies, their
derivatives, the module and `TopClasses`, its form for export.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from graphscale.core.arguments import instance, one_of, whole_number
from graphscale.core.errors import GraphScaleError
from graphscale.layers import hierarchical_softmax_decompositions as decompositions
from graphscale.layers.autograd import (
    full_type,
    register_autocast,
    register_derivatives,
    widest_type,
)
from graphscale.layers.class_clusters import balanced_clusters, frequency_clusters
from graphscale.layers.hierarchical_softmax_curvature import gradients_of_gradients
from graphscale.layers.operator import Operator, is_transformed

_PARAMETERS = "Tensor cluster_weight, Tensor cluster_bias, Tensor weight, Tensor bias"
_SPAN = "Tensor cluster_start"

# K clusters, V classes, in the order of the rows of `weight`. `cluster_log_prob` [N, K] are the
# log-probabilities of the clusters, `clusters` [N, V] the cluster of each row, `within` [N, V] the
# log-probability of each row's class in its cluster: its logit minus the logarithm of the sum of
# the exponentials in its cluster, from which the cluster's largest logit is subtracted first.
_LOG_PROBABILITIES = """
        cluster_logits = Gemm <transB = 1> (x, cluster_weight, cluster_bias)
        cluster_log_prob = LogSoftmax <axis = 1> (cluster_logits)
        logits = Gemm <transB = 1> (x, weight, bias)
        one = Constant <value_ints = [1]> ()
        zero = Constant <value_ints = [0]> ()
        rest = Constant <value_ints = [-1]> ()
        nought = Constant <value_int = 0> ()
        single = Constant <value_int = 1> ()
        classes = Shape <start = 0, end = 1> (weight)
        longer = Add (classes, one)
        inner_starts = Slice (cluster_start, one, rest)
        starts_shape = Shape (inner_starts)
        marks = Expand (single, starts_shape)
        unmarked = Expand (nought, longer)
        marked = ScatterElements <axis = 0, reduction = "add"> (unmarked, inner_starts, marks)
        numbered = CumSum (marked, nought)
        row_cluster = Slice (numbered, zero, classes)
        all_shape = Shape (logits)
        clusters = Expand (row_cluster, all_shape)
        cluster_shape = Shape (cluster_logits)
        lowest_float = Constant <value_float = -3.0e38> ()
        lowest = CastLike (lowest_float, x)
        lowest_all = Expand (lowest, cluster_shape)
        maximum = ScatterElements <axis = 1, reduction = "max"> (lowest_all, clusters, logits)
        row_maximum = GatherElements <axis = 1> (maximum, clusters)
        shifted = Sub (logits, row_maximum)
        powers = Exp (shifted)
        nothing_float = Constant <value_float = 0.0> ()
        nothing = CastLike (nothing_float, x)
        nothing_all = Expand (nothing, cluster_shape)
        sums = ScatterElements <axis = 1, reduction = "add"> (nothing_all, clusters, powers)
        log_sums = Log (sums)
        row_log_sum = GatherElements <axis = 1> (log_sums, clusters)
        within = Sub (shifted, row_log_sum)
"""

# `target_row` [N], the row of each target's class, `cluster_column` [N, 1], its cluster, and
# `left_out` [N], whether it is ignored; the rows of ignored targets are those of class 0.
_TARGETS = """
        ignored = Constant <value_int: int = @ignore_index> ()
        left_out = Equal (target, ignored)
        safe = Where (left_out, nought, target)
        target_row = Gather (class_row, safe)
        row_column = Unsqueeze (target_row, one)
        cluster_column = GatherElements <axis = 1> (clusters, row_column)
"""


def _loss_shape(
    x,
    target,
    cluster_weight,
    cluster_bias,
    weight,
    bias,
    class_row,
    cluster_start,
    ignore_index=-100,
) -> Tensor:
    return x.new_empty(x.shape[0])


def _grad_shape(
    grad,
    x,
    target,
    cluster_weight,
    cluster_bias,
    weight,
    bias,
    class_row,
    cluster_start,
    clusters=None,
    ignore_index=-100,
    rows=-1,
) -> tuple[Tensor, ...]:
    count = weight.shape[0] if clusters is None else rows
    return (
        x.new_empty(x.shape),
        x.new_empty(cluster_weight.shape),
        x.new_empty(cluster_bias.shape),
        x.new_empty(count, weight.shape[1]),
        x.new_empty(count),
    )


def _log_prob_shape(
    x, cluster_weight, cluster_bias, weight, bias, row_class, cluster_start
) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _top_k_shape(
    x, cluster_weight, cluster_bias, weight, bias, row_class, cluster_start, k
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], k), x.new_empty(x.shape[0], k, dtype=torch.int64)


hierarchical_softmax_loss = Operator(
    "HierarchicalSoftmaxLoss",
    f"(Tensor x, Tensor target, {_PARAMETERS}, Tensor class_row, {_SPAN}, int ignore_index=-100)"
    " -> Tensor",
    _loss_shape,
    f"""
    <ignore_index: int = -100>
    (x, target, cluster_weight, cluster_bias, weight, bias, class_row, cluster_start) => (loss) {{
        {_LOG_PROBABILITIES}
        {_TARGETS}
        outer = GatherElements <axis = 1> (cluster_log_prob, cluster_column)
        inner = GatherElements <axis = 1> (within, row_column)
        log_prob = Add (outer, inner)
        flat = Squeeze (log_prob, one)
        negative = Neg (flat)
        loss = Where (left_out, nothing, negative)
    }}
    """,
)

# In both softmaxes the gradient to the logits is (probability - one-hot target) * grad; products
# with the weights and with x give all others. The input `clusters`, with which the gradients to
# weight and bias hold only the rows of these clusters, is left out of the body.
hierarchical_softmax_loss_grad = Operator(
    "HierarchicalSoftmaxLossGrad",
    f"(Tensor grad, Tensor x, Tensor target, {_PARAMETERS}, Tensor class_row, {_SPAN}, "
    "Tensor? clusters=None, int ignore_index=-100, int rows=-1)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _grad_shape,
    f"""
    <ignore_index: int = -100, rows: int = -1>
    (grad, x, target, cluster_weight, cluster_bias, weight, bias, class_row, cluster_start)
    => (grad_x, grad_cluster_weight, grad_cluster_bias, grad_weight, grad_bias) {{
        {_LOG_PROBABILITIES}
        {_TARGETS}
        counted = Where (left_out, nothing, grad)
        factor = Unsqueeze (counted, one)
        unit_float = Constant <value_float = 1.0> ()
        unit = CastLike (unit_float, x)
        ones_shape = Shape (row_column)
        ones = Expand (unit, ones_shape)
        cluster_prob = Exp (cluster_log_prob)
        cluster_hot = ScatterElements <axis = 1> (nothing_all, cluster_column, ones)
        cluster_difference = Sub (cluster_prob, cluster_hot)
        cluster_error = Mul (factor, cluster_difference)
        prob = Exp (within)
        same = Equal (clusters, cluster_column)
        own = Where (same, prob, nothing)
        nothing_rows = Expand (nothing, all_shape)
        hot = ScatterElements <axis = 1> (nothing_rows, row_column, ones)
        difference = Sub (own, hot)
        error = Mul (factor, difference)
        outer_x = MatMul (cluster_error, cluster_weight)
        inner_x = MatMul (error, weight)
        grad_x = Add (outer_x, inner_x)
        grad_cluster_weight = Gemm <transA = 1> (cluster_error, x)
        grad_cluster_bias = ReduceSum <keepdims = 0> (cluster_error, zero)
        grad_weight = Gemm <transA = 1> (error, x)
        grad_bias = ReduceSum <keepdims = 0> (error, zero)
    }}
    """,
)

hierarchical_softmax_log_prob = Operator(
    "HierarchicalSoftmaxLogProb",
    f"(Tensor x, {_PARAMETERS}, Tensor row_class, {_SPAN}) -> Tensor",
    _log_prob_shape,
    f"""
    (x, cluster_weight, cluster_bias, weight, bias, row_class, cluster_start) => (log_prob) {{
        {_LOG_PROBABILITIES}
        outer = GatherElements <axis = 1> (cluster_log_prob, clusters)
        by_row = Add (outer, within)
        class_columns = Expand (row_class, all_shape)
        log_prob = ScatterElements <axis = 1> (by_row, class_columns, by_row)
    }}
    """,
)

hierarchical_softmax_top_k = Operator(
    "HierarchicalSoftmaxTopK",
    f"(Tensor x, {_PARAMETERS}, Tensor row_class, {_SPAN}, int k) -> (Tensor, Tensor)",
    _top_k_shape,
    """
    <k>(x, cluster_weight, cluster_bias, weight, bias, row_class, cluster_start)
    => (log_prob, index) {
        all = graphscale.HierarchicalSoftmaxLogProb (x, cluster_weight, cluster_bias, weight, bias,
                                                     row_class, cluster_start)
        one = Constant <value_ints = [1]> ()
        k = Constant <value_int: int = @k> ()
        count = Reshape (k, one)
        log_prob, index = TopK <axis = 1> (all, count)
    }
    """,
)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.ignore_index = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad: Tensor):
    grad_x, *gradients = hierarchical_softmax_loss_grad(
        grad.contiguous(), *ctx.saved_tensors, None, ctx.ignore_index
    )
    return (
        grad_x if ctx.needs_input_grad[0] else None,
        None,
        *[g if ctx.needs_input_grad[2 + i] else None for i, g in enumerate(gradients)],
        None,
        None,
        None,
    )


def _setup_context_gradient(ctx, inputs, output) -> None:
    *tensors, ctx.ignore_index, _ = inputs
    ctx.save_for_backward(*tensors)


def _backward_gradient(ctx, *cotangents: Tensor):
    grad, x, target, *parameters, class_row, cluster_start, clusters = ctx.saved_tensors
    of_grad, of_x, *of_parameters = gradients_of_gradients(
        cotangents,
        *(grad, x, target, parameters),
        *(class_row, cluster_start, clusters, ctx.ignore_index),
    )
    return of_grad, of_x, None, *of_parameters, None, None, None, None, None


register_derivatives(hierarchical_softmax_loss, decompositions.loss, _backward, _setup_context)
register_derivatives(
    hierarchical_softmax_loss_grad,
    decompositions.loss_grad,
    _backward_gradient,
    _setup_context_gradient,
    decompose_second=True,
)
register_derivatives(hierarchical_softmax_log_prob, decompositions.log_prob)
register_derivatives(hierarchical_softmax_top_k, decompositions.top_k)
for _operator in (
    hierarchical_softmax_loss,
    hierarchical_softmax_log_prob,
    hierarchical_softmax_top_k,
):
    register_autocast(_operator, full_type)
register_autocast(hierarchical_softmax_loss_grad, widest_type)


class _SparseLoss(torch.autograd.Function):
    """The loss with sparse gradients to weight and bias: only the rows of the targets' clusters."""

    @staticmethod
    def forward(ctx, ignore_index: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.ignore_index = ignore_index
        return hierarchical_softmax_loss(*tensors, ignore_index)

    @staticmethod
    def backward(ctx, grad: Tensor):
        _, target, _, _, weight, bias, class_row, cluster_start = ctx.saved_tensors
        # A target that is no class raised an error on a CPU; on a GPU it has no gradient.
        is_class = (target >= 0) & (target < class_row.numel())
        rows = class_row[target[is_class & (target != ctx.ignore_index)]]
        clusters = torch.unique(torch.searchsorted(cluster_start, rows, right=True) - 1)
        sizes = cluster_start[clusters + 1] - cluster_start[clusters]
        count = int(sizes.sum())
        grad_x, grad_cluster_weight, grad_cluster_bias, grad_weight, grad_bias = (
            hierarchical_softmax_loss_grad(
                grad.contiguous(), *ctx.saved_tensors, clusters, ctx.ignore_index, count
            )
        )
        # The compact gradient holds the rows of the clusters one after another: index[i] is the
        # row of weight for its row i.
        ends = sizes.cumsum(0)
        shift = (cluster_start[clusters] - ends + sizes).repeat_interleave(sizes)
        index = (torch.arange(count, device=shift.device) + shift)[None]
        sparse = [
            torch.sparse_coo_tensor(
                index, values, parameter.shape, check_invariants=False, is_coalesced=True
            )
            for values, parameter in ((grad_weight, weight), (grad_bias, bias))
        ]
        return None, grad_x, None, grad_cluster_weight, grad_cluster_bias, *sparse, None, None


class HierarchicalSoftmax(nn.Module):
    """Loss of one class of very many, -log p(cluster) - log p(class | cluster) (fbcunn HSM).

    x [..., D] and an integer target [...] give the loss, reduced as by ``torch.nn.NLLLoss``;
    `log_prob` gives the log-probabilities of all classes, `top_k` the best classes. Types are
    float32, float64, float16 and bfloat16; under autocast it computes in float32, as torch's losses
    do. For V classes in K clusters a sample costs O((K + V / K) D) instead of O(V D): loss and
    gradients read the clusters' weights and those of the target's cluster only.

    ``weight`` [V, D] and ``bias`` [V] hold one row per class, cluster after cluster; ``class_row``
    [V] is the row of each class. ``cluster_weight`` is [K, D], ``cluster_bias`` [K].

    Args:
        in_features: D.
        num_classes: V.
        clusters: int64 [V], the cluster of each class, for example from
            `graphscale.layers.class_clusters.tree_clusters`. Clusters without a class are left out.
        frequencies: [V]; without ``clusters``, classes of similar frequency make a cluster.
        num_clusters: K without ``clusters``; about the square root of V by default. Without
            ``frequencies`` too, neighbouring classes make a cluster.
        sparse: The gradients to ``weight`` and ``bias`` are sparse tensors of the rows that were
            read; ``torch.optim.SGD`` then updates those rows alone (fbcunn's direct update).
        ignore_index: A target that adds nothing to the loss.
        reduction: "mean", "sum" or "none".

    Raises:
        GraphScaleError: an argument does not fit the others, or a target is no class. On a GPU the
            loss of such a target is not-a-number instead.

    Example:
        >>> softmax = HierarchicalSoftmax(64, 10_000, frequencies=1 / torch.arange(1, 10_001))
        >>> softmax(torch.randn(32, 64), torch.randint(10_000, (32,))).backward()
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        clusters: Tensor | None = None,
        frequencies: Tensor | None = None,
        num_clusters: int | None = None,
        sparse: bool = False,
        ignore_index: int = -100,
        reduction: str = "mean",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        one_of("HierarchicalSoftmax: reduction", reduction, ("mean", "sum", "none"))
        in_features = whole_number("HierarchicalSoftmax: in_features", in_features, 0)
        num_classes = whole_number("HierarchicalSoftmax: num_classes", num_classes, 1)
        ignore_index = whole_number("HierarchicalSoftmax: ignore_index", ignore_index)
        for name, given in (("clusters", clusters), ("frequencies", frequencies)):
            if given is None:
                continue
            wanted = f"a tensor with one value per class, [{num_classes}]"
            instance(f"HierarchicalSoftmax: {name}", given, Tensor, wanted)
            if given.shape != (num_classes,):
                raise GraphScaleError(
                    f"HierarchicalSoftmax: {name} has shape {list(given.shape)}; give {wanted}"
                )
        if clusters is None:
            count = max(1, round(math.sqrt(num_classes)))
            if num_clusters is not None:
                name = "HierarchicalSoftmax: num_clusters"
                count = whole_number(name, num_clusters, 1, num_classes)
            if frequencies is None:
                clusters = balanced_clusters(num_classes, count)
            else:
                clusters = frequency_clusters(frequencies, count)
        if clusters.dtype != torch.int64:
            raise GraphScaleError(
                f"HierarchicalSoftmax: clusters is of {clusters.dtype}; give torch.int64"
            )
        self.in_features = in_features
        self.num_classes = num_classes
        self.sparse = sparse
        self.ignore_index = ignore_index
        self.reduction = reduction
        # The rows of the classes are computed on the CPU: the meta device cannot.
        _, clusters, sizes = torch.unique(clusters.cpu(), return_inverse=True, return_counts=True)
        row_class = torch.argsort(clusters, stable=True)
        start = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        place = torch.empty(0, device=device).device  # torch's default device where None
        self.register_buffer("row_class", row_class.to(place))
        self.register_buffer("class_row", row_class.argsort().to(place))
        self.register_buffer("cluster_start", start.to(place))
        empty = partial(torch.empty, device=place, dtype=dtype)
        self.cluster_weight = nn.Parameter(empty(len(sizes), in_features))
        self.cluster_bias = nn.Parameter(empty(len(sizes)))
        self.weight = nn.Parameter(empty(num_classes, in_features))
        self.bias = nn.Parameter(empty(num_classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights uniformly from +-1 / sqrt(in_features); biases are zero."""
        bound = 1 / math.sqrt(max(self.in_features, 1))
        nn.init.uniform_(self.cluster_weight, -bound, bound)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.cluster_bias)
        nn.init.zeros_(self.bias)

    def _parameters_in_order(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.cluster_weight, self.cluster_bias, self.weight, self.bias

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Loss of x [..., in_features] for integer target [...], reduced as nn.NLLLoss does."""
        # The kernel itself compares the lengths of x [N, D] and target [N].
        unequal = x.dim() != target.dim() + 1 or (x.dim() > 2 and x.shape[:-1] != target.shape)
        if unequal or target.is_floating_point():
            raise GraphScaleError(
                f"HierarchicalSoftmax: x is {list(x.shape)} and target {target.dtype} "
                f"{list(target.shape)}; give x [..., {self.in_features}] and integers [...]"
            )
        shape, target = target.shape, _flat(target).long()
        tensors = (
            _as_matrix(x, self.in_features),
            target,
            *self._parameters_in_order(),
            self.class_row,
            self.cluster_start,
        )
        sparse = self.sparse and not is_transformed()  # torch.func needs dense gradients
        if sparse and torch.is_grad_enabled() and not torch.compiler.is_exporting():
            loss = _SparseLoss.apply(self.ignore_index, *tensors)
        else:
            loss = hierarchical_softmax_loss(*tensors, self.ignore_index)
        if self.reduction == "none":
            return loss if loss.dim() == len(shape) else loss.reshape(shape)
        if self.reduction == "sum":
            return loss.sum()
        return loss.sum() / (target != self.ignore_index).sum()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probabilities of all classes [..., num_classes] for x [..., in_features]."""
        y = hierarchical_softmax_log_prob(
            _as_matrix(x, self.in_features),
            *self._parameters_in_order(),
            self.row_class,
            self.cluster_start,
        )
        return _unflattened(y, x)

    def top_k(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities and int64 numbers [..., k] of the k best classes, the best first."""
        log_prob, classes = hierarchical_softmax_top_k(
            _as_matrix(x, self.in_features),
            *self._parameters_in_order(),
            self.row_class,
            self.cluster_start,
            k,
        )
        return _unflattened(log_prob, x), _unflattened(classes, x)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.in_features}, {self.num_classes}, num_clusters={len(self.cluster_bias)}"


def _flat(target: Tensor) -> Tensor:
    return target if target.dim() == 1 else target.reshape(-1)


def _as_matrix(x: Tensor, features: int) -> Tensor:
    if x.dim() == 2:
        return x  # the kernel itself compares its features
    if x.dim() == 0 or x.shape[-1] != features:
        raise GraphScaleError(f"HierarchicalSoftmax: x is {list(x.shape)}; give [..., {features}]")
    return x.reshape(-1, features)


def _unflattened(y: Tensor, x: Tensor) -> Tensor:
    """Undo `_as_matrix`: y, a row per row of x, in the leading dimensions of x."""
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], y.shape[-1])


class TopClasses(nn.Module):
    """A trained HierarchicalSoftmax for inference and export: x to its k best classes.

    x [..., D] gives log-probabilities [..., k] and int64 classes [..., k], the best first.

    Example:
        >>> log_prob, classes = TopClasses(HierarchicalSoftmax(64, 1000), k=5)(torch.randn(2, 64))
        >>> classes.shape
        torch.Size([2, 5])
    """

    def __init__(self, softmax: HierarchicalSoftmax, k: int) -> None:
        super().__init__()
        wanted = "a HierarchicalSoftmax"
        self.softmax = instance("TopClasses: softmax", softmax, HierarchicalSoftmax, wanted)
        self.k = whole_number("TopClasses: k", k, 1, self.softmax.num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and classes [..., k] of x [..., D]."""
        return self.softmax.top_k(x, self.k)
