"""onnxruntime with graphscale's operators."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from graphscale.errors import GraphScaleError

if TYPE_CHECKING:
    import onnxruntime


def get_library_path() -> str:
    """Path of the library for ``SessionOptions.register_custom_ops_library``.

    Raises GraphScaleError when this installation was made without it.
    """
    path = Path(__file__).parent / "lib" / "libgraphscale.so"
    if not path.is_file():
        raise GraphScaleError(
            f"{path} does not exist; install graphscale with pip, or build the library in place "
            "with 'make lib'"
        )
    return str(path)


def session(path: str | os.PathLike[str] | bytes, **kwargs) -> onnxruntime.InferenceSession:
    """Open a model (path or bytes) in onnxruntime with our operators, on the GPU if there is one.

    ``kwargs`` go to ``onnxruntime.InferenceSession``; ``sess_options`` get the library registered,
    and ``providers`` are CUDA, where it is available, and the CPU unless they are given. Raises
    GraphScaleError for a file that does not exist.
    """
    import onnxruntime

    if not isinstance(path, bytes):
        path = str(path)
    if isinstance(path, str) and not Path(path).is_file():
        raise GraphScaleError(f"{path} does not exist; give the path of an ONNX file")
    options = kwargs.pop("sess_options", None) or onnxruntime.SessionOptions()
    options.register_custom_ops_library(get_library_path())
    if "providers" not in kwargs:
        wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        available = onnxruntime.get_available_providers()
        kwargs["providers"] = [name for name in wanted if name in available and _usable(name)]
    return onnxruntime.InferenceSession(path, sess_options=options, **kwargs)


def _usable(provider: str) -> bool:
    """A CUDA build of onnxruntime lists CUDA on machines without a GPU, too, and then complains."""
    return provider != "CUDAExecutionProvider" or any(
        os.path.exists(device) for device in ("/dev/nvidiactl", "/dev/dxg")
    )
