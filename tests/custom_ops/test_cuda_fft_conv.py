"""FFT convolution on CUDA, emulated on the host, against torch's convolution in float64."""

import math

import pytest
import torch
from torch.nn import functional

from graphscale.layers import library
from graphscale.layers.operator import OPERATORS

FORWARD, TO_INPUT, TO_WEIGHT = "FFTConv", "FFTConvGradInput", "FFTConvGradWeight"
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float64: 1e-14}
PER_CHANNEL = [16, 24, 32, 40, 48, 64, 72, 84, 96]
DENSE = [16, 24, 32, 40, 48, 64]


def random(*shape, dtype, seed, offset=0):
    """Normally distributed numbers that start ``offset`` elements behind an aligned address."""
    generator = torch.Generator().manual_seed(seed)
    count = math.prod(shape)
    numbers = torch.randn(offset + count, generator=generator, dtype=torch.float64).to(dtype)
    return numbers[offset:].view(shape)


def reference(x, weight, bias, group, strides, dilations, pads):
    spatial = x.dim() - 2
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[spatial - 1]
    margins = []
    for d in reversed(range(spatial)):
        margins += [pads[d], pads[spatial + d]]
    return convolve(functional.pad(x, margins), weight, bias, strides, 0, dilations, group)


def relative_error(actual, wanted):
    return ((actual.double() - wanted).norm() / wanted.norm().clamp_min(1e-30)).item()


@pytest.fixture
def check(on_cuda, monkeypatch):
    """Compares all passes with float64; algorithm None leaves the choice to the cost model."""

    def check(
        algorithm,
        x_shape,
        weight_shape,
        group=1,
        strides=None,
        dilations=None,
        pads=None,
        dtype=torch.float32,
        passes=(FORWARD, TO_INPUT, TO_WEIGHT),
        tolerance=None,
        offset=0,
    ):
        if algorithm is not None:
            monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", algorithm)
        tolerance = tolerance or TOLERANCE[dtype]
        spatial = len(x_shape) - 2
        x = random(*x_shape, dtype=dtype, seed=0, offset=offset)
        weight = random(*weight_shape, dtype=dtype, seed=1, offset=offset)
        bias = random(weight_shape[0], dtype=dtype, seed=2)
        geometry = {
            "group": group,
            "strides": strides or (1,) * spatial,
            "dilations": dilations or (1,) * spatial,
            "pads": pads or (0,) * (2 * spatial),
        }
        wide = [t.double().requires_grad_() for t in (x, weight)]
        y = reference(*wide, bias.double(), **geometry)
        grad = random(*y.shape, dtype=dtype, seed=3, offset=offset)
        to_x, to_weight = torch.autograd.grad(y, wide, grad.double())
        if FORWARD in passes:
            got = on_cuda(OPERATORS[FORWARD], x, weight, bias, **geometry)
            assert relative_error(got, y.detach()) < tolerance
        if TO_INPUT in passes:
            got = on_cuda(OPERATORS[TO_INPUT], grad, weight, x, **geometry)
            assert relative_error(got, to_x) < tolerance
        if TO_WEIGHT in passes:
            got = on_cuda(OPERATORS[TO_WEIGHT], grad, x, weight, **geometry)
            assert relative_error(got, to_weight) < tolerance

    return check


@pytest.mark.parametrize("size", PER_CHANNEL)
def test_depthwise_in_tiles(check, size):
    kernel = size // 2 - 1
    length = size + 9  # two tiles each way
    check(
        f"per_channel {size}x{size}",
        (2, 3, length, length - 4),
        (3, 1, kernel, kernel + 2),
        group=3,
    )


@pytest.mark.parametrize("size", PER_CHANNEL)
def test_depthwise_whole_image_in_one_tile(check, size):
    kernel = size // 2 - 1
    pad = kernel // 2
    length = size - pad  # as large as one tile can hold
    check(
        f"per_channel {size}x{size}",
        (3, 2, length, length - 3),
        (2, 1, kernel, kernel),
        2,
        pads=(pad,) * 4,
    )


@pytest.mark.parametrize("size", DENSE)
def test_dense_in_tiles(check, size):
    kernel = size // 2 - 1
    length = size + 5
    check(f"dense {size}x{size}", (1, 5, length, 7), (3, 5, kernel, 3), pads=(1, 2, 0, 1))


@pytest.mark.parametrize(("ins", "outs"), [(30, 20), (31, 19)])  # pairs of results, single ones
def test_dense_with_little_memory(check, monkeypatch, ins, outs):
    monkeypatch.setenv("GRAPHSCALE_CUDA_SPECTRA_MB", "1")  # two images at a time
    check("dense 16x16", (5, ins, 21, 17), (outs, ins, 7, 3))


def test_dense_with_more_channels_than_a_block_has(check):
    check("dense 16x16", (2, 70, 9, 8), (37, 70, 5, 4), passes=(FORWARD,))
    check("dense 16x16", (1, 36, 9, 9), (68, 18, 3, 3), group=2, passes=(TO_INPUT, TO_WEIGHT))


GEOMETRIES = {
    "strides": {"strides": (2, 3)},
    "dilations": {"dilations": (2, 3)},
    "both": {"strides": (3, 2), "dilations": (2, 1), "pads": (2, 0, 1, 3)},
    "pads beyond the kernel": {"pads": (9, 5, 6, 11)},
    "uneven pads": {"pads": (0, 3, 2, 0)},
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_strides_dilations_and_pads(check, geometry):
    check("per_channel 16x16", (2, 4, 20, 18), (4, 1, 3, 4), group=4, **geometry)
    check("dense 16x16", (2, 4, 20, 18), (6, 2, 3, 4), group=2, **geometry)
    check("direct", (2, 4, 20, 18), (6, 2, 3, 4), group=2, **geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_few_channels_per_group_fused(check, geometry):
    check("per_channel 24x24", (3, 6, 31, 27), (4, 3, 6, 5), group=2, **geometry)


LINES = {
    "plain": {},
    "pads": {"pads": (40, 17)},
    "strides": {"strides": (3,), "pads": (5, 9)},
    "dilations": {"dilations": (2,), "pads": (0, 6)},
    "both": {"strides": (2,), "dilations": (3,), "pads": (1, 2)},
}


@pytest.mark.parametrize("geometry", LINES.values(), ids=LINES)
def test_lines_are_folded(check, geometry):
    check("dense 16x16", (2, 4, 391), (6, 2, 30), group=2, **geometry)
    check("per_channel 16x16", (2, 4, 391), (4, 1, 30), group=4, **geometry)


def test_long_kernels_of_lines_are_in_parts(check):
    # 64 numbers of a kernel fit tiles of 16 x 16, 1024 those of 64 x 64.
    check("dense 16x16", (2, 3, 500), (2, 3, 150))
    check("per_channel 16x16", (2, 3, 500), (3, 1, 199), group=3, pads=(99, 99))
    check("dense 64x64", (1, 2, 3000), (3, 2, 1500), passes=(FORWARD,))
    check("dense 16x16", (1, 2, 300), (2, 2, 90), strides=(2,), dilations=(2,))


def test_several_filters_of_each_channel(check):
    check("per_channel 16x16", (2, 3, 12, 11), (6, 1, 5, 5), group=3, passes=(FORWARD, TO_WEIGHT))
    check("dense 16x16", (2, 3, 12, 11), (6, 1, 5, 5), group=3, passes=(TO_INPUT,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("algorithm", ["direct", "per_channel 32x32", "dense 32x32"])
def test_16_bit_floats(check, dtype, algorithm):
    group = 3 if algorithm.startswith("per") else 1
    check(algorithm, (2, 3, 30, 25), (3, 3 // group, 7, 5), group=group, dtype=dtype)


def rounding(wanted, dtype=torch.bfloat16):
    """The relative error of ``wanted`` rounded to ``dtype``: the best that a kernel can reach."""
    return relative_error(wanted.to(dtype), wanted)


def convolutions(x, weight, grad, pad):
    """The operator, the inputs and the float64 result of each pass."""
    wide = [t.double().requires_grad_() for t in (x, weight)]
    y = functional.conv2d(*wide, padding=pad)
    to_x, to_weight = torch.autograd.grad(y, wide, grad.double())
    return [
        (FORWARD, [x, weight], y.detach()),
        (TO_INPUT, [grad, weight, x], to_x),
        (TO_WEIGHT, [grad, x, weight], to_weight),
    ]


# The largest error allowed, as a multiple of `rounding`; the goal itself is a multiple of 2.
BFLOAT16 = 1.15


@pytest.mark.parametrize(
    ("size", "ins", "outs", "kernel", "length"),
    [(16, 70, 37, 5, 20), (32, 37, 19, 13, 40), (64, 10, 4, 31, 40)],
)
@pytest.mark.parametrize("mean", [0, 3])
def test_bfloat16_is_as_accurate_as_float32_sums(
    on_cuda, monkeypatch, mean, size, ins, outs, kernel, length
):
    """The hardest case for spectra: inputs with a large mean, which kernels of mean 0 cancel."""
    monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", f"dense {size}x{size}")
    monkeypatch.setenv("GRAPHSCALE_CUDA_SPECTRA_MB", "1")
    x = (random(3, ins, length, length, dtype=torch.float64, seed=0) + mean).clamp_min(0)
    weight = random(outs, ins, kernel, kernel, dtype=torch.float64, seed=1)
    weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / 30
    grad = random(3, outs, length, length, dtype=torch.float64, seed=2)
    given = [t.bfloat16() for t in (x, weight, grad)]
    for name, inputs, wanted in convolutions(*given, kernel // 2):
        got = on_cuda(OPERATORS[name], *inputs, pads=(kernel // 2,) * 4)
        assert relative_error(got, wanted) < BFLOAT16 * rounding(wanted)


@pytest.mark.parametrize(
    ("x_scale", "weight_scale"), [(1, 1), (2.0**100, 2.0**-110), (2.0**-126, 2.0**100), (0, 1)]
)
def test_bfloat16_of_any_magnitude(on_cuda, monkeypatch, x_scale, weight_scale):
    monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", "dense 32x32")
    x = (random(2, 5, 30, 20, dtype=torch.float64, seed=0) * x_scale).bfloat16()
    weight = (random(6, 5, 9, 7, dtype=torch.float64, seed=1) * weight_scale).bfloat16()
    bias = random(6, dtype=torch.bfloat16, seed=2)
    wanted = functional.conv2d(x.double(), weight.double(), bias.double())
    got = on_cuda(OPERATORS[FORWARD], x, weight, bias)
    assert relative_error(got, wanted) < BFLOAT16 * rounding(wanted) + 1e-9


def test_bfloat16_images_do_not_disturb_each_other(on_cuda, monkeypatch):
    monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", "dense 16x16")
    x = random(4, 6, 20, 20, dtype=torch.bfloat16, seed=0)
    weight = random(4, 6, 5, 5, dtype=torch.bfloat16, seed=1)
    x *= torch.tensor([1, 1e-12, 1e12, 1]).bfloat16()[:, None, None, None]
    x[0, 0, 10, 10] = float("inf")
    wanted = functional.conv2d(x.double(), weight.double())
    got = on_cuda(OPERATORS[FORWARD], x, weight)
    assert not got[0].isfinite().all()
    for image in (1, 2, 3):
        assert relative_error(got[image], wanted[image]) < BFLOAT16 * rounding(wanted[image])


def test_bfloat16_without_overflow(on_cuda, monkeypatch):
    """All products have one sign and are as large as they can be, and so are all sums."""
    monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", "dense 16x16")
    x = torch.full((2, 33, 16, 16), 1.9921875).bfloat16()  # just below a power of two
    weight = torch.full((3, 33, 8, 8), -1.9921875).bfloat16()
    grad = torch.full((2, 3, 9, 9), 1.9921875).bfloat16()
    for name, inputs, wanted in convolutions(x, weight, grad, 0):
        assert relative_error(on_cuda(OPERATORS[name], *inputs), wanted) < 3e-3


def test_bfloat16_in_geometries_groups_lines_and_unaligned_memory(check):
    check("dense 16x16", (3, 6, 19, 18), (4, 3, 3, 4), 2, dtype=torch.bfloat16, offset=1)
    check("dense 16x16", (2, 1, 19, 18), (1, 1, 3, 4), dtype=torch.bfloat16, offset=3)
    for geometry in GEOMETRIES.values():
        check("dense 16x16", (2, 4, 20, 18), (6, 2, 3, 4), 2, dtype=torch.bfloat16, **geometry)
    for geometry in LINES.values():
        check("dense 16x16", (2, 4, 391), (6, 2, 30), 2, dtype=torch.bfloat16, **geometry)
    check("dense 16x16", (2, 3, 500), (2, 3, 150), dtype=torch.bfloat16)


@pytest.mark.parametrize("size", DENSE)
def test_bfloat16_in_tiles(check, size):
    kernel = size // 2 - 1
    length = size + 5
    shapes = (1, 10, length, 7), (9, 10, kernel, 3)
    check(f"dense {size}x{size}", *shapes, pads=(1, 2, 0, 1), dtype=torch.bfloat16, tolerance=2e-3)


def test_bfloat16_with_float32_spectra(on_cuda, check, monkeypatch):
    algorithm = "dense 32x32 tf32"
    check(algorithm, (2, 3, 30, 25), (3, 3, 7, 5), dtype=torch.bfloat16, tolerance=2e-3)
    monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", algorithm)
    with pytest.raises(Exception, match=f"{algorithm}.*does not compute this convolution"):
        on_cuda(OPERATORS[FORWARD], torch.ones(1, 2, 40, 40).half(), torch.ones(2, 2, 9, 9).half())


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_direct_in_float64(check, spatial):
    check(
        None,
        (2, 4, *(7, 6, 5)[:spatial]),
        (6, 2, *(3, 2, 4)[:spatial]),
        group=2,
        strides=(2, 1, 1)[:spatial],
        dilations=(1, 2, 1)[:spatial],
        pads=(1, 2, 3, 0, 1, 2)[: 2 * spatial],
        dtype=torch.float64,
    )


@pytest.mark.parametrize(
    ("x", "weight", "group"),
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), 1),
        ((2, 3, 40, 31), (3, 1, 31, 31), 3),
        ((1, 8, 20, 20), (8, 8, 13, 13), 1),
        ((2, 2, 1, 30), (2, 2, 1, 9), 1),
    ],
)
def test_the_chosen_algorithm(check, x, weight, group):
    check(None, x, weight, group, pads=(weight[2] // 2, weight[3] // 2) * 2)


def test_accuracy_at_31(check):
    passes = (FORWARD,)
    check(
        "dense 64x64", (1, 8, 40, 40), (4, 8, 31, 31), pads=(15,) * 4, passes=passes, tolerance=4e-7
    )
    check("per_channel 72x72", (1, 2, 56, 56), (2, 1, 31, 31), 2, pads=(15,) * 4, tolerance=4e-7)


@pytest.mark.parametrize("depth", [16, 21])  # of the products: with and without a rest
def test_tf32(check, monkeypatch, depth):
    check("dense 32x32 tf32", (1, depth, 30, 30), (8, depth, 9, 9), tolerance=6e-4)
    with pytest.raises(AssertionError):
        check("dense 32x32 tf32", (1, 16, 30, 30), (8, 16, 9, 9), tolerance=1e-5)
    monkeypatch.setenv("GRAPHSCALE_TF32", "1")
    monkeypatch.delenv("GRAPHSCALE_CUDA_ALGORITHM")
    check(None, (1, 64, 20, 20), (64, 64, 9, 9), passes=(FORWARD,), tolerance=6e-4)


def test_not_a_number_stays_one(on_cuda, monkeypatch):
    x = torch.zeros(1, 2, 20, 20)
    x[0, 0, 3, 3] = float("nan")
    for algorithm in ("dense 32x32", "dense 32x32 tf32", "per_channel 32x32"):
        monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", algorithm)
        assert on_cuda(OPERATORS[FORWARD], x, torch.ones(2, 2, 5, 5)).isnan().any()


@pytest.mark.parametrize(
    "algorithm", ["dense 99x99", "dense 16x16", "per_channel 16x16 tf32", "fastest"]
)
def test_a_demanded_algorithm_that_does_not_fit(on_cuda, monkeypatch, algorithm):
    monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", algorithm)
    with pytest.raises(Exception, match=f"{algorithm}.*does not compute this convolution.*direct"):
        on_cuda(OPERATORS[FORWARD], torch.ones(1, 2, 40, 40), torch.ones(2, 2, 17, 17))


def test_algorithms_are_listed_and_run(on_cuda, check, monkeypatch):
    x, weight = torch.ones(1, 8, 40, 40), torch.ones(8, 8, 9, 9)
    for name, inputs in {
        FORWARD: [x, weight, None],
        TO_INPUT: [torch.ones(1, 8, 32, 32), weight, x],
        TO_WEIGHT: [torch.ones(1, 8, 32, 32), x, weight],
    }.items():
        algorithms = on_cuda(library.algorithms, name, inputs, {})
        assert "direct" in algorithms
        assert {algorithm.split()[0] for algorithm in algorithms} == {
            "direct",
            "per_channel",
            "dense",
        }
        for algorithm in algorithms:
            check(algorithm, x.shape, weight.shape, passes=(name,))
    monkeypatch.setenv("GRAPHSCALE_TF32", "1")
    singles = on_cuda(library.algorithms, FORWARD, [x, weight, None], {})
    assert all(algorithm.endswith("tf32") for algorithm in singles if algorithm.startswith("dense"))
    halves = [x.half(), weight.half(), None]
    assert not any(
        "tf32" in algorithm for algorithm in on_cuda(library.algorithms, FORWARD, halves, {})
    )
    doubles = [x.double(), weight.double(), None]
    assert on_cuda(library.algorithms, FORWARD, doubles, {}) == ["direct"]


@pytest.mark.parametrize("algorithm", ["auto", "dense 16x16", "dense 1x4096", "direct", "nonsense"])
def test_the_algorithm_attribute_is_a_hint(on_cuda, algorithm):
    x, weight = random(1, 2, 30, 28, dtype=torch.float32, seed=0), torch.ones(3, 2, 9, 7)
    got = on_cuda(OPERATORS[FORWARD], x, weight, algorithm=algorithm)
    wanted = functional.conv2d(x.double(), weight.double())
    assert relative_error(got, wanted) < 1e-6


def test_empty_batch(on_cuda):
    x, weight = torch.zeros(0, 3, 20, 20), torch.ones(2, 3, 5, 5)
    assert on_cuda(OPERATORS[FORWARD], x, weight).shape == (0, 2, 16, 16)
    grad = torch.zeros(0, 2, 16, 16)
    assert on_cuda(OPERATORS[TO_INPUT], grad, weight, x).shape == (0, 3, 20, 20)
    assert not on_cuda(OPERATORS[TO_WEIGHT], grad, x, weight).any()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("algorithm", ["direct", "dense 24x24", "per_channel 24x24"])
def test_bounds(on_cuda, monkeypatch, algorithm, dtype):
    monkeypatch.setenv("GRAPHSCALE_CUDA_ALGORITHM", algorithm)
    x, weight = random(2, 5, 13, 17, dtype=dtype, seed=0), random(3, 5, 4, 3, dtype=dtype, seed=1)
    y = on_cuda(OPERATORS[FORWARD], x, weight, minimum=-2.0, maximum=3.0)
    wanted = functional.conv2d(x.double(), weight.double()).clamp(-2, 3)
    assert relative_error(y, wanted) < 4 * TOLERANCE[dtype]
