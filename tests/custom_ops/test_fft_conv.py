"""custom_ops/kernels/cpu/fft_conv: all passes by many algorithms, against torch and scipy."""

import ctypes
import os
import subprocess
import sys
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch

ROOT = Path(__file__).parents[2]
FORWARD, GRADIENT_INPUT, GRADIENT_WEIGHT = PASSES = range(3)
SIZES = [1, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 60, 64, 72, 80, 96, 112, 128, 144, 160, 192]


@dataclass
class Problem:
    batch: int = 1
    in_channels: int = 1
    out_channels: int = 1
    groups: int = 1
    height: int = 1
    width: int = 1
    kernel_height: int = 1
    kernel_width: int = 1
    stride_y: int = 1
    stride_x: int = 1
    dilation_y: int = 1
    dilation_x: int = 1
    pad_top: int = 0
    pad_left: int = 0
    pad_bottom: int = 0
    pad_right: int = 0

    def sizes(self) -> ctypes.Array:
        return (ctypes.c_int64 * 16)(*map(int, astuple(self)))

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.batch, self.in_channels, self.height, self.width

    @property
    def w_shape(self) -> tuple[int, ...]:
        fan_in = self.in_channels // self.groups
        return self.out_channels, fan_in, self.kernel_height, self.kernel_width

    def convolve(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None):
        padded = torch.nn.functional.pad(
            x, (self.pad_left, self.pad_right, self.pad_top, self.pad_bottom)
        )
        strides, dilations = (self.stride_y, self.stride_x), (self.dilation_y, self.dilation_x)
        return torch.conv2d(padded, w, bias, strides, 0, dilations, self.groups)


@pytest.fixture(scope="session")
def kernels(build_target):
    library = ctypes.CDLL(str(build_target("fft_conv_test") / "libfft_conv_test.so"))
    for name in ("check", "candidates", "run"):
        getattr(library, f"fft_conv_{name}").restype = ctypes.c_char_p
    library.fft_conv_seconds.restype = ctypes.c_double
    return library


def pointer(array: np.ndarray | None) -> ctypes.c_void_p | None:
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


def run(kernels, problem, algorithm, pass_, a, b, bias=None, shape=()) -> np.ndarray:
    out = np.full(shape, np.nan, np.float32)
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    error = kernels.fft_conv_run(
        problem.sizes(),
        pass_,
        algorithm.encode(),
        pointer(a),
        pointer(b),
        pointer(bias),
        pointer(out),
    )
    assert error is None, error.decode()
    return out


WINOGRAD = [f"winograd {height}x{width}" for height in (1, 4, 6) for width in (1, 4, 6)][1:]


def algorithms(kernels, problem, pass_, random, count) -> list[str]:
    """The cost model's two best algorithms, and ``count`` random ones that fit the problem."""
    chosen = kernels.fft_conv_candidates(problem.sizes(), pass_, 2).decode().split(";")
    possible = [
        f"{method} {height}x{width}"
        for method in ("dense", "per_channel")
        for height in SIZES
        for width in SIZES
        if width > 1 and height * width <= 128 * 128
    ]
    possible += WINOGRAD * 4
    random.shuffle(possible)
    fitting = (
        each
        for each in possible
        if kernels.fft_conv_supports(problem.sizes(), pass_, each.encode())
    )
    others = list(islice(fitting, count))
    first = [algorithm for algorithm in chosen[:2] if algorithm != "direct"]
    if kernels.fft_conv_supports(problem.sizes(), pass_, b"direct"):
        first.append("direct")
    return first + others


def relative_error(found: np.ndarray, exact: torch.Tensor) -> float:
    exact = exact.detach().numpy()
    norm = np.linalg.norm(exact)
    return np.linalg.norm(found - exact) / (norm if norm else 1)


def check_all_passes(
    kernels, problem, random, count=3, tolerance=2e-6, only: list[str] | None = None
) -> None:
    x = random.standard_normal(problem.x_shape).astype(np.float32)
    w = random.standard_normal(problem.w_shape).astype(np.float32)
    bias = random.standard_normal(problem.out_channels).astype(np.float32)
    exact_x, exact_w = (torch.tensor(t).double().requires_grad_() for t in (x, w))
    exact_y = problem.convolve(exact_x, exact_w, torch.tensor(bias).double())
    dy = random.standard_normal(exact_y.shape).astype(np.float32)
    exact_dx, exact_dw = torch.autograd.grad(exact_y, (exact_x, exact_w), torch.tensor(dy).double())
    for pass_, (a, b, exact) in zip(
        PASSES, [(x, w, exact_y), (dy, w, exact_dx), (x, dy, exact_dw)], strict=True
    ):
        tried = only or algorithms(kernels, problem, pass_, random, count)
        assert tried
        for algorithm in tried:
            given = bias if pass_ == FORWARD else None
            out = run(kernels, problem, algorithm, pass_, a, b, given, tuple(exact.shape))
            error = relative_error(out, exact)
            assert error <= tolerance, (problem, algorithm, pass_, error)


def random_problem(random: np.random.Generator) -> Problem:
    groups = int(random.choice([1, 1, 2, 3, 7]))
    strides, dilations = random.choice([1, 1, 2, 3], 2), random.choice([1, 1, 2, 3], 2)
    kernel, pads = random.integers(1, 9, 2), random.integers(0, 5, 4)
    needed = dilations * (kernel - 1) + 1 - pads[:2] - pads[2:]
    image = np.maximum(needed, 1) + random.integers(0, 30, 2)
    return Problem(
        int(random.integers(1, 4)),
        groups * int(random.integers(1, 20)),
        groups * int(random.integers(1, 20)),
        groups,
        *map(int, (*image, *kernel, *strides, *dilations, *pads)),
    )


@pytest.mark.parametrize("seed", range(40))
def test_random_problems(kernels, seed):
    random = np.random.default_rng(seed)
    check_all_passes(kernels, random_problem(random), random)


@pytest.mark.parametrize(
    "problem",
    [
        Problem(1, 1, 1, 1, 1, 1, 1, 1),
        Problem(2, 3, 5, 1, 1, 1, 3, 3, pad_top=1, pad_left=1, pad_bottom=1, pad_right=1),
        Problem(1, 4, 4, 1, 9, 11, 9, 11),
        Problem(1, 2, 2, 1, 5, 6, 9, 12, pad_top=2, pad_left=6, pad_bottom=2, pad_right=0),
        Problem(1, 2, 2, 1, 5, 5, 5, 5, pad_top=4, pad_left=0, pad_bottom=4, pad_right=8),
        Problem(3, 2, 4, 1, 1, 200, 1, 33, pad_left=16, pad_right=16),
        Problem(1, 17, 33, 1, 20, 20, 7, 7, 5, 4),
        Problem(1, 6, 6, 6, 30, 31, 5, 5, 2, 3, 3, 2, 4, 5, 6, 7),
        Problem(2, 8, 24, 8, 15, 40, 4, 3, 1, 2, 4, 1),
        Problem(1, 3, 3, 1, 6, 6, 2, 2, 4, 4),
        Problem(2, 40, 40, 1, 40, 40, 5, 5, pad_top=2, pad_left=2, pad_bottom=2, pad_right=2),
    ],
    ids=[
        "one pixel",
        "one pixel in padding",
        "kernel as large as the image",
        "kernel as large as the padded image",
        "uneven padding",
        "one dimension",
        "strides beyond the kernel's half",
        "depthwise, strided and dilated",
        "three outputs per group",
        "strides beyond the kernel",
        "several chunks of lanes",
    ],
)
def test_special_problems(kernels, problem):
    check_all_passes(kernels, problem, np.random.default_rng(0), count=6)


@pytest.mark.parametrize("size", SIZES[1:])
def test_every_transform_size(kernels, size):
    """Transforms of this size along both axes, against scipy."""
    random = np.random.default_rng(size)
    tap = size // 2
    problem = Problem(1, 1, 1, 1, size, size, tap, tap)
    x = random.standard_normal(problem.x_shape).astype(np.float32)
    w = random.standard_normal(problem.w_shape).astype(np.float32)
    exact = scipy.signal.correlate(
        x[0, 0].astype(np.float64), w[0, 0].astype(np.float64), mode="valid"
    )
    for method in ("dense", "per_channel"):
        algorithm = f"{method} {size}x{size}"
        out = run(kernels, problem, algorithm, FORWARD, x, w, None, (1, 1, *exact.shape))
        assert np.linalg.norm(out[0, 0] - exact) <= 1e-6 * np.linalg.norm(exact)


@pytest.mark.parametrize("algorithm", WINOGRAD)
def test_winograd_tiles(kernels, algorithm):
    """A tile size is supported for exactly the kernels that it can compute, in all passes."""
    random = np.random.default_rng(7)
    height, width = map(int, algorithm.split()[1].split("x"))
    taps = {1: [1], 4: [2, 3], 6: [2, 3, 4, 5]}
    for rows in range(1, 7):
        for columns in range(1, 7):
            problem = Problem(2, 19, 35, 1, 11, 75, rows, columns, 1, 1, 1, 1, 1, 0, rows - 1, 2)
            possible = rows in taps[height] and columns in taps[width]
            assert (
                kernels.fft_conv_supports(problem.sizes(), FORWARD, algorithm.encode()) == possible
            )
            if possible:
                check_all_passes(kernels, problem, random, only=[algorithm])


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("channels", [64, 384])
def test_winograd_rounds_at_most_four_times_as_much_as_direct(kernels, channels, nonnegative):
    random = np.random.default_rng(1)
    problem = Problem(1, channels, channels, 1, 14, 30, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1)
    x = random.standard_normal(problem.x_shape).astype(np.float32)
    x = np.maximum(x, 0) if nonnegative else x
    w = random.standard_normal(problem.w_shape).astype(np.float32)
    exact = problem.convolve(torch.tensor(x).double(), torch.tensor(w).double())
    dy = random.standard_normal(exact.shape).astype(np.float32)
    arrays = [torch.tensor(x).double(), torch.tensor(w).double().requires_grad_()]
    (exact_dw,) = torch.autograd.grad(
        problem.convolve(*arrays), arrays[1:], torch.tensor(dy).double()
    )
    errors = {}
    for algorithm in ("direct", "winograd 4x4", "winograd 6x6"):
        y = run(kernels, problem, algorithm, FORWARD, x, w, None, exact.shape)
        dw = run(kernels, problem, algorithm, GRADIENT_WEIGHT, x, dy, None, w.shape)
        errors[algorithm] = [relative_error(y, exact), relative_error(dw, exact_dw)]
    for algorithm in ("winograd 4x4", "winograd 6x6"):
        for found, direct in zip(errors[algorithm], errors["direct"], strict=True):
            assert found <= 4 * direct, errors


@pytest.mark.parametrize("size", [512, 1024, 4096, 8192, 131072])
def test_long_kernels(kernels, size):
    """In one dimension, all passes: forward against scipy, the gradients by adjointness."""
    random = np.random.default_rng(size)
    taps = size // 3
    problem = Problem(1, 2, 3, 1, 1, size + 100, 1, taps, pad_left=taps // 2, pad_right=7)
    x = random.standard_normal(problem.x_shape).astype(np.float32)
    w = random.standard_normal(problem.w_shape).astype(np.float32)
    padded = np.pad(x[0, :, 0].astype(np.float64), ((0, 0), (taps // 2, 7)))
    exact = np.stack(
        [
            sum(
                scipy.signal.fftconvolve(each, taps_of[0, ::-1].astype(np.float64), mode="valid")
                for each, taps_of in zip(padded, kernel, strict=True)
            )
            for kernel in w
        ]
    )
    dy = random.standard_normal(exact.shape).astype(np.float32)[None, :, None]
    inner = np.vdot(exact, dy.astype(np.float64))
    for method in ("dense", "per_channel"):
        algorithm = f"{method} 1x{size}"
        y = run(kernels, problem, algorithm, FORWARD, x, w, None, dy.shape)
        assert np.linalg.norm(y[0, :, 0] - exact) <= 2e-6 * np.linalg.norm(exact)
        dx = run(kernels, problem, algorithm, GRADIENT_INPUT, dy, w, None, x.shape)
        dw = run(kernels, problem, algorithm, GRADIENT_WEIGHT, x, dy, None, w.shape)
        scale = 1e-6 * np.linalg.norm(exact) * np.linalg.norm(dy)
        assert abs(np.vdot(dx.astype(np.float64), x) - inner) <= scale
        assert abs(np.vdot(dw.astype(np.float64), w) - inner) <= scale


@pytest.mark.parametrize("groups", [1, 32])
def test_accuracy_at_31x31(kernels, groups):
    problem = Problem(1, 32, 32, groups, 64, 64, 31, 31, 1, 1, 1, 1, 15, 15, 15, 15)
    check_all_passes(kernels, problem, np.random.default_rng(0), count=20)


@pytest.mark.parametrize("algorithm", ["dense 24x32", "winograd 6x6"])
def test_gradients_are_adjoint(kernels, algorithm):
    """<conv(x, w), dy> = <x, gradient_input(dy, w)> = <w, gradient_weight(x, dy)>."""
    random = np.random.default_rng(3)
    problem = Problem(2, 5, 7, 1, 23, 30, 5, 4, 1, 1, 1, 1, 2, 1, 3, 0)
    x, w = (
        random.standard_normal(shape).astype(np.float32)
        for shape in (problem.x_shape, problem.w_shape)
    )
    shape = tuple(problem.convolve(torch.tensor(x), torch.tensor(w)).shape)
    dy = random.standard_normal(shape).astype(np.float32)
    y = run(kernels, problem, algorithm, FORWARD, x, w, None, shape)
    dx = run(kernels, problem, algorithm, GRADIENT_INPUT, dy, w, None, x.shape)
    dw = run(kernels, problem, algorithm, GRADIENT_WEIGHT, x, dy, None, w.shape)
    inner = [np.vdot(a.astype(np.float64), b) for a, b in ((y, dy), (x, dx), (w, dw))]
    np.testing.assert_allclose(inner[1:], inner[0], rtol=1e-5)


def test_an_empty_batch_leaves_zero_gradients(kernels):
    problem = Problem(0, 2, 3, 1, 8, 8, 3, 3)
    empty = np.zeros((0, 2, 8, 8), np.float32)
    dw = run(kernels, problem, "dense 8x8", GRADIENT_WEIGHT, empty, empty, None, (3, 2, 3, 3))
    assert not dw.any()
    w = np.ones((3, 2, 3, 3), np.float32)
    assert run(kernels, problem, "dense 8x8", FORWARD, empty, w, None, (0, 3, 6, 6)).size == 0


def test_cost_model_takes_each_method_where_it_belongs(kernels):
    def first(problem: Problem) -> str:
        return kernels.fft_conv_candidates(problem.sizes(), FORWARD, 2).decode().split(";")[0]

    assert first(Problem(4, 64, 64, 1, 56, 56, 1, 1)) == "direct"
    assert first(Problem(4, 64, 64, 1, 56, 56, 3, 3)).startswith("winograd")
    assert first(Problem(4, 64, 64, 1, 64, 64, 31, 31)).startswith("dense")
    assert first(Problem(4, 64, 64, 64, 56, 56, 31, 31, 1, 1, 1, 1, 15, 15, 15, 15)).startswith(
        "per_channel"
    )


def test_cost_model_prices_every_candidate(kernels):
    problem = Problem(4, 64, 64, 1, 64, 64, 13, 13)
    for pass_ in PASSES:
        for algorithm in kernels.fft_conv_candidates(problem.sizes(), pass_, 2).split(b";"):
            assert 0 < kernels.fft_conv_seconds(problem.sizes(), pass_, algorithm, 2) < 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"groups": 3}, "groups"),
        ({"kernel_height": 0}, "tap"),
        ({"stride_x": 0}, "strides"),
        ({"dilation_y": 0}, "dilations"),
        ({"pad_left": -1}, "pads"),
        ({"kernel_width": 99}, "larger than the padded input"),
    ],
)
def test_bad_problems_are_named(kernels, change, sentence):
    problem = Problem(1, 4, 4, 1, 8, 8, 3, 3)
    assert kernels.fft_conv_check(problem.sizes()) is None
    for name, value in change.items():
        setattr(problem, name, value)
    assert sentence in kernels.fft_conv_check(problem.sizes()).decode()


def test_a_tile_shorter_than_the_kernel_is_refused(kernels):
    problem = Problem(1, 1, 1, 1, 20, 20, 13, 13)
    assert not kernels.fft_conv_supports(problem.sizes(), FORWARD, b"dense 12x16")
    x, w, y = np.zeros((20, 20), np.float32), np.zeros((13, 13), np.float32), np.zeros((8, 8))
    error = kernels.fft_conv_run(
        problem.sizes(), FORWARD, b"dense 12x16", pointer(x), pointer(w), None, pointer(y)
    )
    assert b"does not compute" in error


@pytest.mark.parametrize("simd", ["avx2", "portable"])
def test_other_instruction_sets(kernels, simd):
    """The engine is chosen once per process, so these run in one of their own."""
    if os.environ.get("GRAPHSCALE_SIMD"):
        pytest.skip("runs the other engines itself")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    selection = ["-k", "special or 31x31 or long or random_problems"]
    environment = os.environ | {"GRAPHSCALE_SIMD": simd}
    done = subprocess.run(
        [*command, *selection], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:]
