"""Give a network images of the current size: the pre-train size before growth, then the target's.

There are three ways, which can be combined: `resize_batch` resizes a batch on its device;
`ResizeInputs` resizes the images in a hook of the module; with `SharedImageSize` the DataLoader's
workers make images of the right size in the first place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from graphscale.core.arguments import height_and_width, instance, one_of
from graphscale.core.errors import GraphScaleError

_MODES = ("bilinear", "bicubic", "nearest")


def resize_batch(
    images: torch.Tensor, size: int | Sequence[int], mode: str = "bilinear"
) -> torch.Tensor:
    """Resize images (N, C, H, W) to another height and width, on their device.

    Args:
        images: Of any dtype, which is kept (integers are rounded), as is the memory format.
        size: Height and width, or one number for both.
        mode: 'bilinear' or 'bicubic', antialiased as Pillow does it, or 'nearest' (torch's
            'nearest-exact') for label maps.

    Returns:
        The resized images; `images` itself if it has the size already.

    Raises:
        GraphScaleError: `images` is no tensor of four dimensions, or `size` or `mode` is none.

    Example:
        >>> import torch
        >>> from graphscale.training import resize_batch
        >>> resize_batch(torch.rand(8, 3, 64, 64), 48).shape
        torch.Size([8, 3, 48, 48])
    """
    instance("images", images, torch.Tensor, "a tensor (N, C, H, W)")
    one_of("mode", mode, _MODES)
    height_width = height_and_width("size", size)
    if images.ndim != 4:
        raise GraphScaleError(
            f"resize_batch takes images (N, C, H, W), not a tensor of shape {list(images.shape)}; "
            "resize the network's inputs yourself to the schedule's image_size"
        )
    if tuple(images.shape[2:]) == height_width:
        return images
    if mode == "nearest":
        given = images if images.is_floating_point() else images.double()  # exact for labels
        return F.interpolate(given, height_width, mode="nearest-exact").to(images.dtype)
    # Half precision is resized in float32: CPUs have no antialiased kernel for it.
    wide = images if images.dtype in (torch.float32, torch.float64) else images.float()
    resized = F.interpolate(wide, height_width, mode=mode, antialias=True)
    if images.dtype == resized.dtype:
        return resized
    if not images.is_floating_point():
        bounds = torch.iinfo(images.dtype)
        resized = resized.round().clamp(bounds.min, bounds.max)
    return resized.to(images.dtype)


class ResizeInputs:
    """Forward pre-hook: resizes the images that a module is given to `size` (height, width).

    With it, a training or validation loop that always passes images of the target's size need not
    change. Only the first argument is resized, and only if it is a tensor (N, C, H, W). Register
    the hook with prepend=True, because a pre-train module checks the size in a hook of its own.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = height_and_width("size", size)

    def __call__(self, module: nn.Module, inputs: tuple) -> tuple:
        """The module's arguments, the first one resized."""
        first = inputs[0] if inputs else None
        if not isinstance(first, torch.Tensor) or first.ndim != 4:
            return inputs
        return (resize_batch(first, self.size), *inputs[1:])


class SharedImageSize:
    """The current image size, shared between processes.

    A data set or transform that holds it sees, in every worker, the size that the training process
    sets, also with persistent workers and any start method. So small images are decoded and
    augmented at their small size. Images that workers have prefetched keep the old size; resize
    them by `resize_batch` or `ResizeInputs`.

    Args:
        size: Height and width, or one number for both.

    Example:
        >>> from graphscale.training import SharedImageSize
        >>> size = SharedImageSize(48)
        >>> # in a data set: image.resize((size.width, size.height))
        >>> size.set(64)
        >>> size.height, size.width
        (64, 64)
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        # Both numbers in one 64-bit word, so that no reader sees the height of one size with the
        # width of another. A tensor, because a multiprocessing.Value is pickled only when a process
        # starts.
        self._word = torch.zeros(1, dtype=torch.int64).share_memory_()
        self.set(size)

    def set(self, size: int | Sequence[int]) -> None:
        """Set the size, for every process."""
        height, width = height_and_width("size", size)
        self._word[0] = height << 32 | width

    @property
    def height(self) -> int:
        """The current height."""
        return self.size[0]

    @property
    def width(self) -> int:
        """The current width."""
        return self.size[1]

    @property
    def size(self) -> tuple[int, int]:
        """The current (height, width)."""
        word = int(self._word[0])
        return word >> 32, word & 0xFFFFFFFF

    def __deepcopy__(self, memo: dict) -> SharedImageSize:
        """The object itself, so that a copy of a data set shares the size."""
        return self
