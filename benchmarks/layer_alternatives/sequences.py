"""Cases of the layers over sequences: TemporalConv, TemporalKMaxPool."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from graphscale.layers import TemporalConv, TemporalKMaxPool

from .case import Alternative, Case, Function, make_case, one_node, text_of


class Turned(nn.Module):
    """Exchanges frames and features."""

    def forward(self, x):
        return x.mT


def temporal_conv(batch, frames, inner, outer, kernel, stride):
    ours = TemporalConv(inner, outer, kernel, stride)
    conv = nn.Conv1d(inner, outer, kernel, stride)
    conv.load_state_dict(ours.state_dict())
    x = torch.randn(batch, frames, inner)
    matrix = ours.weight.permute(0, 2, 1).reshape(outer, -1).detach()

    def unfolded(x):
        return x.unfold(1, kernel, stride).mT.reshape(batch, -1, kernel * inner)

    def turned(x):
        return (x.mT.contiguous(),)

    features_first = one_node(
        "Conv", turned(x), conv.weight.contiguous(), conv.bias, strides=[stride]
    )
    return (
        ours,
        (x,),
        {
            "Conv1d and transposes": Alternative(nn.Sequential(Turned(), conv, Turned())),
            "Conv1d, features first": Alternative(conv, features_first, turned, same=False),
            "unfold and Linear": Alternative(
                Function(
                    lambda x, weight, bias: functional.linear(unfolded(x), weight, bias),
                    weight=matrix,
                    bias=ours.bias,
                )
            ),
            "Linear of unfolded input": Alternative(
                Function(functional.linear, weight=matrix, bias=ours.bias),
                one_node("Gemm", (unfolded(x).flatten(0, 1),), matrix, ours.bias, transB=1),
                lambda x: (unfolded(x).flatten(0, 1).contiguous(),),
            ),
        },
    )


def temporal_k_max_pool(shape, k):
    def by_topk(x):
        index = x.topk(k, dim=1, sorted=False).indices.sort(dim=1).values
        return x.gather(1, index)

    def by_topk_turned(x):
        turned = x.mT.contiguous()
        index = turned.topk(k, dim=2, sorted=False).indices.sort(dim=2).values
        return turned.gather(2, index).mT

    return (
        TemporalKMaxPool(k),
        (torch.randn(shape),),
        {
            "topk, sort, gather": Alternative(Function(by_topk)),
            "the same, time last": Alternative(Function(by_topk_turned)),
        },
    )


def _temporal(batch, frames, inner, outer, kernel, stride) -> Case:
    sizes = f"batch {batch}, {frames} frames, {inner}->{outer}, kernel {kernel}, stride {stride}"
    return make_case(
        "TemporalConv", temporal_conv, sizes, batch, frames, inner, outer, kernel, stride
    )


CASES = [
    _temporal(16, 200, 256, 256, 5, 1),
    _temporal(32, 100, 128, 128, 3, 1),
    _temporal(1, 1000, 512, 512, 9, 1),
    _temporal(32, 50, 64, 100, 5, 1),
    _temporal(8, 400, 80, 256, 7, 2),
    *(
        make_case("TemporalKMaxPool", temporal_k_max_pool, f"{text_of(shape)}, k {k}", shape, k)
        for shape, k in [((32, 100, 128), 5), ((32, 100, 128), 50), ((4, 2000, 64), 8)]
    ),
]
