"""Negative log-likelihood of sparse target distributions (fbcunn SparseNLLCriterion)."""

from __future__ import annotations

from torch import Tensor, nn

from graphscale.core.errors import GraphScaleError


class SparseNLLCriterion(nn.Module):
    """-sum over k of probability[n, k] * log_prob[n, index[n, k]].

    log_prob [N, C], index int64 [N, K] and probability [N, K] give the sum over the batch
    (``reduction="sum"``, as fbcunn), its mean over samples or, with "none", [N]. torch's gather and
    its gradient already are all that it takes: there is no operator of ours in it. Gradients go to
    log_prob and to probability.
    """

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise GraphScaleError(
                f"SparseNLLCriterion: reduction is '{reduction}'; it must be mean, sum or none"
            )
        self.reduction = reduction

    def forward(self, log_prob: Tensor, index: Tensor, probability: Tensor) -> Tensor:
        """Loss."""
        if index.shape != probability.shape or index.dim() != 2 or log_prob.dim() != 2:
            raise GraphScaleError(
                f"SparseNLLCriterion: log_prob is {list(log_prob.shape)}, index "
                f"{list(index.shape)} and probability {list(probability.shape)}; give [N, C], "
                "[N, K] and [N, K]"
            )
        loss = -(log_prob.gather(1, index) * probability).sum(1)
        if self.reduction == "none":
            return loss
        return loss.sum() if self.reduction == "sum" else loss.mean()
