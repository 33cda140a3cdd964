"""Compare the outputs of the pre-train and the grown network on the same images.

In go the pre-train network's file, the grown network, their plan, and images, which `check_images`
reads or draws. Each network gets them at its own size. Out comes, for each output, how far the two
networks are apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.files import check_regular
from graphscale.core.plan import InputPlan, Plan
from graphscale.core.requirements import onnxruntime_for
from graphscale.core.resampling import interpolation_matrix
from graphscale.core.runtime import element_type, open_model, quiet_options, session

if TYPE_CHECKING:
    import onnxruntime


_SYNTHETIC = 16  # images


@dataclass
class Fidelity:
    """How one output of the grown network differs from the pre-train network's.

    Attributes:
        output: Its name.
        difference: Norm of the difference relative to the norm of the pre-train output; None if
            not all numbers are finite.
        correlation: Pearson's, over all numbers of the outputs; None if not all are finite, or if
            those of a network are all the same, up to rounding.
        agreement: Share of images with the same largest class; None where there are no classes, or
            not all numbers are finite.
        images: How many were run.
    """

    output: str
    difference: float | None
    correlation: float | None
    agreement: float | None
    images: int


def check_images(plan: Plan, path: Path | None = None) -> np.ndarray:
    """Images to compare the networks of `plan` on, N×C×H×W.

    Args:
        path: A .npy file of such images as the target network takes them, of any size; by default
            synthetic images with the 1/f spectrum of natural ones.

    Raises:
        GraphScaleError: the network takes no images, or the file holds none that fit.
    """
    entry = _image_input(plan)
    return _load(path, entry) if path else _synthetic(entry)


def compare(pretrain: Path, grown: ir.Model, plan: Plan, images: np.ndarray) -> list[Fidelity]:
    """Compare the two networks on `images`, those of `check_images`, for each output.

    Raises:
        GraphScaleError: the networks have further inputs or not the same outputs, or a network
            does not run.
    """
    onnxruntime_for("--check")
    entry = _image_input(plan)
    outputs = []
    for path, shape in ((pretrain, entry.pretrain), (None, entry.shape)):
        sizes = _sizes(entry, shape)
        try:
            if path is None:
                opened = open_model(grown, sess_options=quiet_options())
            else:
                opened = session(path, sess_options=quiet_options())
            kinds = {each.name: each.type for each in opened.get_inputs()}
            if len(kinds) != 1:
                raise GraphScaleError(
                    "--check needs a network with one image as its only input; leave --check out"
                )
            fed = _as_type(_resize(images, sizes), kinds[entry.name])
            outputs.append(_run(opened, entry, _layout(fed, entry)))
        except _failures() as error:
            reason = " ".join(str(error).split())[-200:]
            raise GraphScaleError(
                f"{path or 'the grown network'}: does not run on images of "
                f"{'×'.join(map(str, sizes))} ({reason}); "
                "give shrink an --input-size that the network takes, or leave --check out"
            ) from None
    names = [each.name for each in opened.get_outputs()]
    if len(outputs[0]) != len(names):
        raise GraphScaleError(
            f"{pretrain}: has {len(outputs[0])} outputs, but the grown network has {len(names)}, "
            "so they cannot be compared; leave --check out"
        )
    pairs = zip(names, *outputs, strict=True)
    return [
        _compare(name, small, large)
        for name, small, large in pairs
        if _comparable(small, large, entry)
    ]


def _failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a model that does not run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.RuntimeException,
        state.NotImplemented,
    )


def _as_type(images: np.ndarray, kind: str) -> np.ndarray:
    """`images` as onnxruntime's type `kind`, such as 'tensor(uint8)'.

    Of synthetic ones, 8-bit values are spread around the middle.
    """
    dtype = element_type(kind)
    if dtype is None or dtype.kind not in "fiu":
        raise GraphScaleError(f"--check has no images of the type {kind}; leave --check out")
    if not np.issubdtype(dtype, np.integer):
        largest = np.finfo(dtype).max
        return np.clip(images, -largest, largest).astype(dtype)
    limits = np.iinfo(dtype)
    if images.min() < limits.min or images.max() < limits.max / 8:
        images = (limits.min + limits.max + 1) / 2 + 50 * images
    return np.clip(np.rint(images), limits.min, limits.max).astype(dtype)


def _comparable(pretrain: np.ndarray, grown: np.ndarray, entry: InputPlan) -> bool:
    """Whether the axes that differ between two outputs are heights or widths.

    An axis on which several maps, or the rows of one, are laid end to end is none of them: its
    size changes by the product of the ratios of height and width.
    """
    if pretrain.ndim != grown.ndim:
        return False
    changed = [(a, b) for a, b in zip(pretrain.shape, grown.shape) if a != b]
    sizes = zip(_sizes(entry, entry.pretrain), _sizes(entry, entry.shape))
    ratios = [a / b for a, b in sizes if a != b]
    if len(changed) > len(ratios) or pretrain.shape[0] != grown.shape[0]:
        return False
    flattened = np.log(np.prod(ratios))
    return len(ratios) < 2 or all(
        min(abs(np.log(a / b) - np.log(ratio)) for ratio in ratios) < abs(np.log(a / b) - flattened)
        for a, b in changed
    )


def _image_input(plan: Plan) -> InputPlan:
    spatial = [each for each in plan.inputs if each.target != each.pretrain]
    if len(spatial) != 1 or len(plan.inputs) != 1 or 0 in spatial[0].spatial:
        raise GraphScaleError(
            "--check needs a network whose only input is a batch of images that shrink made "
            "smaller; leave --check out"
        )
    return spatial[0]


def _sizes(entry: InputPlan, shape: Sequence[int | str]) -> list[int]:
    """Heights and widths; those of the target network where `shape` leaves them open."""
    given = (shape[place] for place in entry.spatial)
    return [a if isinstance(a, int) else entry.shape[b] for a, b in zip(given, entry.spatial)]


def _channels(entry: InputPlan) -> list[int]:
    """The sizes that lie between the batch and the heights and widths of N×C×H×W."""
    return [size for place, size in enumerate(entry.shape) if place and place not in entry.spatial]


def _layout(images: np.ndarray, entry: InputPlan) -> np.ndarray:
    """`images`, N×C×H×W, in the order of the network's input."""
    first = images.ndim - len(entry.spatial)
    return np.moveaxis(images, range(first, images.ndim), entry.spatial)


def _synthetic(entry: InputPlan) -> np.ndarray:
    """Images with amplitudes proportional to 1/frequency, zero mean and unit variance."""
    sizes = _sizes(entry, entry.shape)
    shape = (_SYNTHETIC, *_channels(entry), *sizes)
    noise = np.random.default_rng(0).standard_normal(shape)
    grids = np.meshgrid(*(np.fft.fftfreq(n) for n in sizes), indexing="ij")
    frequency = np.sqrt(sum(grid**2 for grid in grids))
    frequency.flat[0] = np.inf
    axes = tuple(range(noise.ndim - len(sizes), noise.ndim))
    images = np.fft.ifftn(np.fft.fftn(noise, axes=axes) / frequency, axes=axes).real
    return images / images.std(axis=axes, keepdims=True)


def _load(path: Path, entry: InputPlan) -> np.ndarray:
    try:
        check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged header, which is Python text
            images = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy's reader raises errors of many kinds
        reason = " ".join(str(error).split())[:200]
        raise GraphScaleError(
            f"{path}: not a .npy file of images ({reason}); write one with numpy.save"
        ) from None
    if not isinstance(images, np.ndarray) or images.dtype.kind not in "buif":
        raise GraphScaleError(f"{path}: holds no array of numbers; write one with numpy.save")
    channels = _channels(entry)
    fits = images.ndim == len(entry.shape) and [*images.shape[1 : 1 + len(channels)]] == channels
    if not fits or not images.size:
        wanted = "×".join(["N", *map(str, channels), "…"])
        raise GraphScaleError(
            f"{path}: holds an array of shape {list(images.shape)}; give images as {wanted}"
        )
    largest = np.finfo(np.float32).max
    with np.errstate(invalid="ignore"):  # of a damaged extended-precision number
        sizes = np.abs(images.astype(np.float64))
    if not np.all(sizes <= largest):  # nor is any of them NaN
        raise GraphScaleError(
            f"{path}: holds NaN or numbers beyond {largest:.1e}; give images of usual numbers"
        )
    return images


def _resize(images: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Bilinear, at half-pixel centres."""
    for axis, size in enumerate(sizes, start=images.ndim - len(sizes)):
        matrix = interpolation_matrix(images.shape[axis], size)
        images = np.moveaxis(np.moveaxis(images, axis, -1) @ matrix.T, -1, axis)
    return images


def _run(
    session: onnxruntime.InferenceSession, entry: InputPlan, images: np.ndarray
) -> list[np.ndarray]:
    batch = session.get_inputs()[0].shape[0]
    step = batch if isinstance(batch, int) else 8
    images = images[: max(step, len(images) // step * step)]
    if len(images) % step and isinstance(batch, int):
        raise GraphScaleError(f"--check needs at least {batch} images: the batch is fixed")
    runs = [
        session.run(None, {entry.name: np.ascontiguousarray(images[i : i + step])})
        for i in range(0, len(images), step)
    ]
    return [
        np.concatenate([np.atleast_1d(np.asarray(out, np.float64)) for out in outs])
        for outs in zip(*runs)
    ]


def _compare(name: str, pretrain: np.ndarray, grown: np.ndarray) -> Fidelity:
    difference, correlation, top = None, None, None
    if np.isfinite(pretrain).all() and np.isfinite(grown).all():
        for axis, size in enumerate(grown.shape):
            if pretrain.shape[axis] != size:
                matrix = interpolation_matrix(pretrain.shape[axis], size)
                pretrain = np.moveaxis(np.moveaxis(pretrain, axis, -1) @ matrix.T, -1, axis)
        norm = float(np.linalg.norm(pretrain)) or 1.0
        difference = float(np.linalg.norm(grown - pretrain)) / norm
        if _varies(pretrain) and _varies(grown):
            correlation = float(np.corrcoef(pretrain.ravel(), grown.ravel())[0, 1])
        classes = grown.reshape(*grown.shape[:2], -1)
        if grown.ndim >= 2 and classes.shape[1] > 1 and classes.shape[2] == 1:
            largest = pretrain.reshape(len(grown), -1).argmax(1)
            top = float((largest == classes[:, :, 0].argmax(1)).mean())
    return Fidelity(name, difference, correlation, top, len(grown))


def _varies(outputs: np.ndarray) -> bool:
    """Whether float32 numbers differ by more than rounding."""
    return outputs.size > 0 and bool(np.ptp(outputs) > 1e-6 * np.abs(outputs).max())
