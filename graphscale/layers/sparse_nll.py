"""Negative log-likelihood of sparse target distributions (fbcunn SparseNLLCriterion).

Log-probabilities of all classes go in, and for each sample a few classes with their probabilities;
the loss comes out. torch's gather and its gradient do all of it, so the file holds the module
alone.
"""

from __future__ import annotations

from torch import Tensor, nn

from graphscale.core.arguments import one_of
from graphscale.core.errors import GraphScaleError


class SparseNLLCriterion(nn.Module):
    """Loss of a target distribution over few classes (fbcunn SparseNLLCriterion).

    log_prob [N, C], index int64 [N, K] and probability [N, K] give, for each sample n, minus the
    sum over k of probability[n, k] * log_prob[n, index[n, k]]. ``reduction`` is "sum" over the
    batch, as in fbcunn, "mean" over the samples or "none" for [N]. Gradients go to log_prob and to
    probability.

    Raises:
        GraphScaleError: ``reduction`` is none of these, or the shapes do not fit.

    Example:
        >>> log_prob = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> SparseNLLCriterion()(log_prob, torch.tensor([[0, 2]]), torch.tensor([[0.5, 0.5]]))
        tensor(1.0397)
    """

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__()
        choices = ("mean", "sum", "none")
        self.reduction = one_of("SparseNLLCriterion: reduction", reduction, choices)

    def forward(self, log_prob: Tensor, index: Tensor, probability: Tensor) -> Tensor:
        """The loss of log_prob [N, C] for the target's classes and probabilities [N, K]."""
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
