"""Cases of LocallyConnected, against unfold and a product per position."""

from __future__ import annotations

import torch
from torch.nn import functional

from graphscale.layers import LocallyConnected

from .case import Alternative, Function, make_case


def locally_connected(batch, inner, outer, image, kernel):
    ours = LocallyConnected(inner, outer, (image, image), kernel, bias=False)
    places = image - kernel + 1
    weight = ours.weight.detach()
    # One matrix product per position needs the weights by position: [P, C kH kW, F].
    by_position = weight.permute(1, 2, 3, 4, 5, 0).reshape(places * places, -1, outer)

    def einsum(x, weight):
        patches = functional.unfold(x, kernel)
        flat = weight.reshape(outer, places * places, -1)
        y = torch.einsum("ncp,fpc->nfp", patches, flat)
        return y.reshape(batch, outer, places, places)

    def bmm(x, weight):
        patches = functional.unfold(x, kernel).permute(2, 0, 1)
        return torch.bmm(patches, weight).permute(1, 2, 0).reshape(batch, outer, places, places)

    return (
        ours,
        (torch.randn(batch, inner, image, image),),
        {
            "unfold and einsum": Alternative(Function(einsum, weight=weight)),
            "unfold and bmm": Alternative(Function(bmm, weight=by_position.contiguous())),
        },
    )


CASES = [
    make_case(
        "LocallyConnected",
        locally_connected,
        f"batch {batch}, {inner}->{outer}, {image} x {image}, kernel {kernel}",
        *(batch, inner, outer, image, kernel),
    )
    for batch, inner, outer, image, kernel in [(32, 32, 32, 14, 3), (1, 32, 32, 14, 3)]
]
