"""Run the pre-train and the grown network on the same pictures, each at its own size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphscale.core.errors import GraphScaleError
from graphscale.core.plan import InputPlan, Plan
from graphscale.core.resampling import interpolation_matrix

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


@dataclass
class Fidelity:
    """How one output of the grown network differs from the pre-train network's.

    Attributes:
        output: Its name.
        difference: Norm of the difference relative to the norm of the pre-train output.
        correlation: Of all the numbers.
        agreement: Share of pictures with the same largest class; None where there are no classes.
        pictures: How many were run.
    """

    output: str
    difference: float
    correlation: float
    agreement: float | None
    pictures: int


def compare(
    pretrain: Path,
    grown: Path,
    plan: Plan,
    pictures: Path | None = None,
    count: int = 16,
    seed: int = 0,
) -> list[Fidelity]:
    """Compare two model files on `pictures`, or on made-up ones, for each output.

    Args:
        pictures: A .npy file of N×C×H×W numbers as the target network takes them, of any size; by
            default `count` pictures with the 1/f spectrum of natural ones.

    Raises:
        GraphScaleError: the pictures do not fit, or a model does not run.
    """
    from graphscale.core.runtime import session

    sessions = [session(str(path)) for path in (pretrain, grown)]
    kinds = {each.name: each.type for each in sessions[1].get_inputs()}
    spatial = [each for each in plan.inputs if each.target != each.pretrain]
    if not spatial or len(kinds) != 1:
        raise GraphScaleError("--check needs a network with one picture as its only input")
    (entry,) = spatial
    shown = _load(pictures, entry) if pictures else _made_up(entry, count, seed)
    outputs = []
    for each, shape in zip(sessions, (entry.pretrain, entry.target), strict=True):
        sizes = _sizes(entry, shape)
        fed = _resize(shown, sizes).astype(_DTYPES.get(kinds[entry.name], np.float32))
        outputs.append(_run(each, entry, _layout(fed, entry)))
    names = [each.name for each in sessions[1].get_outputs()]
    return [_compare(name, *pair) for name, *pair in zip(names, *outputs, strict=True)]


def _channels_last(entry: InputPlan) -> bool:
    return len(entry.target) > 2 and entry.target[-1] == entry.pretrain[-1]


def _sizes(entry: InputPlan, shape: list[int | str]) -> list[int]:
    """Heights and widths; where the target's are symbolic, the pre-train ones enlarged by 1.5."""
    places = range(1, len(shape) - 1) if _channels_last(entry) else range(2, len(shape))
    return [
        shape[i] if isinstance(shape[i], int) else round(1.5 * entry.pretrain[i]) for i in places
    ]


def _layout(pictures: np.ndarray, entry: InputPlan) -> np.ndarray:
    return np.moveaxis(pictures, 1, -1) if _channels_last(entry) else pictures


def _made_up(entry: InputPlan, count: int, seed: int) -> np.ndarray:
    """Pictures with amplitudes proportional to 1/frequency, zero mean and unit variance."""
    sizes = _sizes(entry, entry.target)
    channels = entry.target[-1 if _channels_last(entry) else 1]
    noise = np.random.default_rng(seed).standard_normal((count, channels, *sizes))
    grids = np.meshgrid(*(np.fft.fftfreq(n) for n in sizes), indexing="ij")
    frequency = np.sqrt(sum(grid**2 for grid in grids))
    frequency.flat[0] = np.inf
    axes = tuple(range(2, noise.ndim))
    pictures = np.fft.ifftn(np.fft.fftn(noise, axes=axes) / frequency, axes=axes).real
    return pictures / pictures.std(axis=axes, keepdims=True)


def _load(path: Path, entry: InputPlan) -> np.ndarray:
    try:
        pictures = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise GraphScaleError(f"{path}: not a .npy file of pictures ({error})") from None
    channels = entry.target[-1 if _channels_last(entry) else 1]
    if pictures.ndim != len(entry.target) or pictures.shape[1] != channels or not len(pictures):
        raise GraphScaleError(
            f"{path}: holds an array of shape {list(pictures.shape)}; "
            f"give pictures as N×{channels}×…"
        )
    return pictures


def _resize(pictures: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Bilinear, at half-pixel centres."""
    for axis, size in enumerate(sizes, start=2):
        matrix = interpolation_matrix(pictures.shape[axis], size)
        pictures = np.moveaxis(np.moveaxis(pictures, axis, -1) @ matrix.T, -1, axis)
    return pictures


def _run(session, entry: InputPlan, pictures: np.ndarray) -> list[np.ndarray]:
    batch = session.get_inputs()[0].shape[0]
    step = batch if isinstance(batch, int) else 8
    pictures = pictures[: max(step, len(pictures) // step * step)]
    if len(pictures) % step and isinstance(batch, int):
        raise GraphScaleError(f"--check needs at least {batch} pictures: the batch is fixed")
    runs = [
        session.run(None, {entry.name: np.ascontiguousarray(pictures[i : i + step])})
        for i in range(0, len(pictures), step)
    ]
    return [np.concatenate([np.asarray(out, np.float64) for out in outs]) for outs in zip(*runs)]


def _compare(name: str, pretrain: np.ndarray, grown: np.ndarray) -> Fidelity:
    if pretrain.ndim > 2 and pretrain.shape != grown.shape:
        pretrain = _resize(pretrain, list(grown.shape[2:]))
    norm = float(np.linalg.norm(pretrain)) or 1.0
    varied = pretrain.std() > 0 and grown.std() > 0
    classes = grown.reshape(*grown.shape[:2], -1)
    top = None
    if grown.ndim >= 2 and classes.shape[1] > 1 and classes.shape[2] == 1:
        top = float(
            (pretrain.reshape(len(grown), -1).argmax(1) == classes[:, :, 0].argmax(1)).mean()
        )
    return Fidelity(
        output=name,
        difference=float(np.linalg.norm(grown - pretrain)) / norm,
        correlation=float(np.corrcoef(pretrain.ravel(), grown.ravel())[0, 1]) if varied else 0.0,
        agreement=top,
        pictures=len(grown),
    )
