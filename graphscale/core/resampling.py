"""The linear maps that resize kernels, in closed form (Eq. 5 and 6 of arXiv 1610.03623).

Growth along one axis from k̃ to k taps is a k×k̃ matrix G. Its rows interpolate between the pre-train
taps, and the matrix is multiplied by the amplitude k̃/k (below one), so that the sum of a kernel's
taps stays the same where they are equal, and about the same elsewhere. Over two spatial axes the
amplitudes multiply to the paper's (k̃/k)². Shrinking uses the pseudo-inverse of G: it gives the
pre-train kernel whose growth is nearest to the target kernel, and shrinking what was grown returns
exactly the same weights.

Tables of coordinates, such as anchor points, are not interpolated but continued on their line.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from graphscale.core.errors import GraphScaleError

METHODS = ("bilinear", "bicubic", "nearest", "align-corners")


def check_method(method: object) -> None:
    """Raise for an unknown method of interpolation, before any work.

    Raises:
        GraphScaleError: it is none of `METHODS`.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise GraphScaleError(f"unknown resize method {method!r}; use one of {', '.join(METHODS)}")


@lru_cache
def interpolation_matrix(source: int, target: int, method: str = "bilinear") -> np.ndarray:
    """Interpolation of `source` samples at `target` places, as a target×source float64 matrix.

    Pixel centres stand at half-integers ('half-pixel'); 'align-corners' puts the first and last
    samples on each other instead. Beyond the ends the end samples repeat. Rows sum to one.
    'bicubic' is Keys' kernel with a = -0.75, as in torch. No amplitude correction.

    Raises:
        GraphScaleError: unknown `method`.
    """
    check_method(method)
    places = np.arange(target, dtype=np.float64)
    if method == "align-corners":
        at = places * ((source - 1) / (target - 1) if target > 1 else 0.0)
    else:
        at = (places + 0.5) * source / target - 0.5
    if method == "nearest":
        at = np.floor(at + 0.5)
    below = np.floor(at).astype(int)
    fraction = at - below
    matrix = np.zeros((target, source))
    if method == "bicubic":
        taps = {offset: _cubic(fraction - offset) for offset in (-1, 0, 1, 2)}
    else:
        taps = {0: 1 - fraction, 1: fraction}
    for offset, weight in taps.items():
        np.add.at(matrix, (np.arange(target), np.clip(below + offset, 0, source - 1)), weight)
    matrix.setflags(write=False)
    return matrix


@lru_cache
def coordinate_matrix(source: int, target: int, kind: str) -> np.ndarray:
    """Continues numbers that lie on a line, as a target×source float64 matrix.

    `kind` is one of `core.plan.COORDINATE_KINDS` and says where on the line the new numbers lie.
    Beyond the ends the line is extrapolated, so that the numbers stay exactly on it.
    """
    places = np.arange(target, dtype=np.float64)
    at = places if kind == "pixels" else (places + 0.5) * source / target - 0.5
    matrix = np.zeros((target, source))
    if source == 1:
        matrix[:] = 1.0
    else:
        below = np.clip(np.floor(at), 0, source - 2).astype(int)
        matrix[np.arange(target), below] = 1 - (at - below)
        matrix[np.arange(target), below + 1] = at - below
    matrix.setflags(write=False)
    return matrix


@lru_cache
def growth_matrix(pretrain: int, target: int, method: str = "bilinear") -> np.ndarray:
    """Eq. 5 along one axis: target×pretrain matrix, amplitude pretrain/target included."""
    return interpolation_matrix(pretrain, target, method) * (pretrain / target)


@lru_cache
def shrink_matrix(target: int, pretrain: int, method: str = "bilinear") -> np.ndarray:
    """The pseudo-inverse of `growth_matrix`: pretrain×target."""
    return np.linalg.pinv(growth_matrix(pretrain, target, method))


def _cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys' cubic convolution kernel, of two pixels' radius."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache
def adaptive_averages(source: int, target: int) -> np.ndarray:
    """Adaptive average pooling of `source` pixels to `target`, as a target×source float64 matrix.

    Window i goes from pixel floor(i·source/target) to before pixel ceil((i + 1)·source/target), as
    in torch.nn.AdaptiveAvgPool2d; the windows may be of different sizes.
    """
    found = np.zeros((target, source))
    for i in range(target):
        window = slice(i * source // target, -(-(i + 1) * source // target))
        found[i, window] = 1 / (window.stop - window.start)
    found.flags.writeable = False  # the cache hands it out again
    return found
