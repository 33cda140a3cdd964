"""Calls of every operator that has a CUDA kernel: name, inputs, attributes, how exact."""

import torch

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Of the largest number of the result; CPU and GPU round sums of 16-bit results once each.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}


def _random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _whole(limit, *shape):
    return torch.randint(limit, shape, generator=torch.Generator().manual_seed(0))


def _conv(x, weight, y, passes=("FFTConv", "FFTConvGradInput", "FFTConvGradWeight"), **attributes):
    x, weight, grad = _random(*x), _random(*weight, seed=1), _random(*y, seed=2)
    inputs = {
        "FFTConv": [x, weight, _random(weight.shape[0], seed=3)],
        "FFTConvGradInput": [grad, weight, x],
        "FFTConvGradWeight": [grad, x, weight],
    }
    return [(name, inputs[name], attributes) for name in passes]


def _temporal():
    x, weight, grad = _random(3, 90, 33), _random(70, 5, 33, seed=1), _random(3, 43, 70, seed=2)
    stride = {"stride": 2}
    return [
        ("TemporalConv", [x, weight, _random(70, seed=3)], stride),
        ("TemporalConvGradInput", [grad, weight, x], stride),
        ("TemporalConvGradWeight", [grad, x, weight], stride),
    ]


def _lookup():
    weight, indices = _random(500, 48), _whole(500, 40, 100)
    indices[:20] = 7
    grad, factors = _random(40, 100, 48, seed=1), _random(40, 100, seed=2)
    padding = {"padding_idx": 3}
    return [
        ("LookupTable", [weight, indices], padding),
        ("LookupTableGrad", [grad, indices, weight], padding),
        ("WeightedLookupTable", [weight, indices, factors], padding),
        ("WeightedLookupTableGrad", [grad, indices, factors, weight], padding),
    ]


def _pooling():
    x, grad = _random(4, 40, 9, 5), _random(4, 19, 9, 5, seed=1)
    window = {"width": 4, "stride": 2, "power": 3.0}
    y = x.unfold(1, 4, 2).abs().pow(3).sum(-1).pow(1 / 3)
    maps = {"size": 5, "scale": 0.2, "power": 0.75}
    return [
        ("FeatureLPPooling", [x], window),
        ("FeatureLPPoolingGrad", [grad, x, y], window),
        ("Maxout", [x], {"width": 4, "stride": 2}),
        ("MaxoutGrad", [grad, x], {"width": 4, "stride": 2}),
        ("CrossMapNormalization", [x], maps),
        ("CrossMapNormalizationGrad", [x.roll(1, 1), x], maps),
        ("TemporalKMaxPool", [_random(3, 300, 70)], {"k": 9, "k_dynamic": 0.1}),
    ]


def _hierarchical_softmax():
    sizes = torch.tensor([700, 0, 1, 65, 300, *[20] * 60])
    classes, clusters, samples, width = int(sizes.sum()), len(sizes), 300, 48
    start = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    row_class = torch.randperm(classes, generator=torch.Generator().manual_seed(0))
    class_row = row_class.argsort()
    x = _random(samples, width)
    parameters = [
        _random(clusters, width, seed=1) / 4,
        _random(clusters, seed=2),
        _random(classes, width, seed=3) / 4,
        _random(classes, seed=4),
    ]
    rows = _whole(classes, samples)
    rows[:200] %= 700  # most are in the first cluster
    target = row_class[rows]
    target[5] = -7
    counted = target != -7
    used = torch.unique(torch.searchsorted(start, rows[counted], right=True) - 1).flip(0)
    loss = [x, target, *parameters, class_row, start]
    grad = _random(samples, seed=5)
    ignored = {"ignore_index": -7}
    return [
        ("HierarchicalSoftmaxLoss", loss, ignored),
        ("HierarchicalSoftmaxLossGrad", [grad, *loss], ignored),
        (
            "HierarchicalSoftmaxLossGrad",
            [grad, *loss, used],
            {"rows": int(sizes[used].sum()), **ignored},
        ),
        ("HierarchicalSoftmaxLogProb", [x, *parameters, row_class, start], {}),
        # Of these samples no two of the best classes are as good as equal.
        ("HierarchicalSoftmaxTopK", [x[:70], *parameters, row_class, start], {"k": 20}),
    ]


def _locally_connected(x, filters, kernel, strides):
    out = [(size - span) // step + 1 for size, span, step in zip(x[2:], kernel, strides)]
    attributes = {"strides": list(strides)}
    grad = _random(x[0], filters, *out, seed=2)
    x, weight = _random(*x), _random(filters, *out, x[1], *kernel, seed=1)
    return [
        ("LocallyConnected", [x, weight], attributes),
        ("LocallyConnectedGradInput", [grad, weight, x], attributes),
        ("LocallyConnectedGradWeight", [grad, x, weight], attributes),
    ]


def _one_bit():
    gradient, residual = _random(30, 1000), _random(30, 1000, seed=1)
    words = torch.randint(2**32, (30, 32), generator=torch.Generator().manual_seed(0))
    return [
        ("OneBitQuantize", [gradient, residual], {}),
        ("OneBitDequantize", [words.to(torch.uint32), _random(30, 2)], {"columns": 1000}),
    ]


DEPTHWISE = {"group": 8, "pads": [15] * 4, "strides": [1, 1], "dilations": [1, 1]}
CASES = [
    *_conv((4, 8, 56, 56), (8, 1, 31, 31), (4, 8, 56, 56), **DEPTHWISE),
    *_conv((3, 40, 64, 50), (70, 40, 13, 9), (3, 70, 52, 42)),
    *_conv((3, 40, 64, 50), (70, 40, 13, 9), (3, 70, 52, 42), algorithm="dense 64x64"),
    *_conv((3, 37, 40, 30), (19, 37, 13, 9), (3, 19, 28, 22), algorithm="dense 32x32"),
    *_conv((2, 4, 40, 40), (8, 2, 5, 5), (2, 8, 18, 12), group=2, strides=[2, 3]),
    *_conv((2, 4, 30), (6, 4, 3), (2, 6, 28)),
    *_conv((2, 4, 30), (6, 4, 3), (2, 6, 28), passes=("FFTConv",), minimum=0.0),
    *_conv((3, 8, 40, 30), (8, 8, 9, 9), (3, 8, 32, 22), passes=("FFTConv",), maximum=0.5),
    *_temporal(),
    *_lookup(),
    *_pooling(),
    *_hierarchical_softmax(),
    *_locally_connected((70, 9, 14, 12), 66, (5, 3), (2, 1)),
    *_locally_connected((1, 3, 9, 9), 8, (3, 3), (1, 1)),
    *_one_bit(),
]
NAMES = [f"{name} {i}" for i, (name, _, _) in enumerate(CASES)]


def cast(tensors, dtype):
    """The floating tensors in another type."""
    return [t.to(dtype) if t is not None and t.is_floating_point() else t for t in tensors]
