"""Find the numbers of external tensors, in the model's own file or in data files beside it.

In goes a tensor that refers to a place in a file; out comes a tensor whose numbers are a view of
the memory-mapped file. A view takes no memory until its numbers are read.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphscale.core.errors import GraphScaleError
from graphscale.core.files import check_regular

INLINE = "#inline"  # external-data location of tensors that stand in the model file itself


class ExternalData:
    """The files that one model's tensors stand in.

    Args:
        model: Path of the model; None for one in memory, whose files are sought in the working
            folder.
        source: The model's name in messages.
        inline: The bytes of the model's own file.
    """

    def __init__(self, model: Path | None, source: str, inline: mmap.mmap | bytes) -> None:
        self._folder = model.parent if model is not None else Path.cwd()
        self._model = model
        self._source = source
        self._files: dict[str, mmap.mmap | bytes] = {INLINE: inline}

    def paths(self) -> list[Path]:
        """The files that have been opened, the model's own first; none for a model in memory."""
        own = [] if self._model is None else [self._model]
        return own + [self._folder / name for name in self._files if name != INLINE]

    def resolve(self, tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
        """Return `tensor`, or for an external one a tensor that views its file.

        Raises:
            GraphScaleError: the file is missing, too short, or stands outside the model's folder.
        """
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        location = str(tensor.location)
        if location not in self._files:
            self._files[location] = self._open(location, tensor.name)
        data = self._files[location]
        offset = tensor.offset or 0
        if offset < 0 or offset + tensor.nbytes > len(data):
            raise GraphScaleError(
                f"{self._source}: tensor {tensor.name!r} ends behind the end of its data file; "
                "the file is truncated, copy it again"
            )
        if tensor.dtype.bitwidth < 8:
            array = np.frombuffer(data, np.uint8, tensor.nbytes, offset)
            return ir.PackedTensor(array, tensor.dtype, shape=tensor.shape, name=tensor.name)
        array = np.frombuffer(data, tensor.dtype.numpy(), tensor.size, offset)
        return ir.Tensor(
            array.reshape(tensor.shape.numpy()), tensor.dtype, shape=tensor.shape, name=tensor.name
        )

    def _open(self, location: str, tensor: str | None) -> mmap.mmap | bytes:
        named = f"{self._source}: the external data file {location!r} of tensor {tensor!r}"
        path = self._folder / location
        try:
            outside = Path(location).is_absolute() or ".." in Path(location).parts
            outside = outside or not self._inside(path)
            missing = not path.exists()
        except (OSError, RuntimeError, ValueError) as error:  # no file name, or a circle of links
            raise GraphScaleError(
                f"{named} has no usable name ({error}); export the model again"
            ) from None
        if outside:
            raise GraphScaleError(
                f"{named} stands outside the model's folder; put it beside the model"
            )
        if missing:
            raise GraphScaleError(f"{named} is missing; put it beside the model")
        return map_file(path, named, "copy it again")

    def _inside(self, path: Path) -> bool:
        """Whether `path`, with all links followed, is beside the model.

        Where the model itself is a link, the folder that it leads to is right, too: caches of
        downloaded models hold folders of links, which lead into one folder of files.
        """
        folders = [self._folder.resolve()]
        if self._model is not None:
            folders.append(self._model.resolve().parent)
        return any(path.resolve().is_relative_to(folder) for folder in folders)


def map_file(path: Path, name: str, advice: str) -> mmap.mmap | bytes:
    """The bytes of a regular file, mapped rather than read.

    Raises:
        GraphScaleError: the file, which the text calls `name`, cannot be read; ends in `advice`.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise GraphScaleError(f"{name} cannot be read ({reason}); {advice}") from None
