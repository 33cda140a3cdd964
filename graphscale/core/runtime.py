"""Open models in onnxruntime with graphscale's operators, and say where the library is."""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphscale.core.arguments import instance
from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import to_proto
from graphscale.core.requirements import onnxruntime_for

if TYPE_CHECKING:
    import onnx
    import onnxruntime

# Options that have the library. onnxruntime refuses to register it in the same options twice, and
# does not tell whether it is registered.
_REGISTERED: weakref.WeakSet[onnxruntime.SessionOptions] = weakref.WeakSet()

_LARGE = 1024  # bytes; smaller weights travel in the message


def get_library_path() -> str:
    """Path of the library for ``SessionOptions.register_custom_ops_library``.

    Raises GraphScaleError when this installation was made without it.
    """
    path = Path(__file__).parents[1] / "lib" / "libgraphscale.so"
    if not path.is_file():
        raise GraphScaleError(
            f"{path} does not exist; install graphscale with pip, or build the library in place "
            "with 'make lib'"
        )
    return str(path)


def session(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto, **kwargs: Any
) -> onnxruntime.InferenceSession:
    """Open a model (path, bytes or message) in onnxruntime with our operators.

    ``kwargs`` go to ``onnxruntime.InferenceSession``; ``sess_options`` get the library registered,
    once however many sessions they serve, and ``providers`` are CUDA, where it is available, and
    the CPU unless they are given. Raises GraphScaleError for what is no file, and for what
    onnxruntime does not take.
    """
    onnxruntime_for("a session")
    if hasattr(model, "SerializeToString"):
        given: str | bytes = model.SerializeToString()
    else:
        given = model if isinstance(model, bytes) else _file(model)
    with refusals(given if isinstance(given, str) else "the model in memory"):
        return open_raw(given, **kwargs)


def open_raw(model: str | bytes, **kwargs: Any) -> onnxruntime.InferenceSession:
    """Open a file or a message as `session` does; raises onnxruntime's own errors."""
    onnxruntime = onnxruntime_for("a session")
    options = kwargs.pop("sess_options", None)
    if options is None:
        options = onnxruntime.SessionOptions()
    kind = onnxruntime.SessionOptions
    instance("sess_options", options, kind, "an onnxruntime.SessionOptions")
    if options not in _REGISTERED:
        options.register_custom_ops_library(get_library_path())
        _REGISTERED.add(options)
    if "providers" not in kwargs:
        wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        available = onnxruntime.get_available_providers()
        kwargs["providers"] = [name for name in wanted if name in available and _usable(name)]
    try:
        return onnxruntime.InferenceSession(model, sess_options=options, **kwargs)
    except Exception as error:
        if "Domain already set" not in str(error):
            raise
        raise GraphScaleError(
            "the library is registered in the session options already; leave "
            "register_custom_ops_library to graphscale.session, or open the model with onnxruntime"
        ) from error


def open_model(model: ir.Model, **kwargs: Any) -> onnxruntime.InferenceSession:
    """Open an onnx-ir model as `session` does, without writing it to a file.

    It raises onnxruntime's own errors (see `refusals`). onnxruntime reads the weights where they
    are, so that they take no second place in memory and may be larger than the 2 GiB that a message
    can hold.
    """
    onnxruntime = onnxruntime_for("a session")
    arrays: dict[str, np.ndarray] = {}
    given = {
        name: (value, value.const_value)
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and _taken_in_place(value.const_value)
    }
    try:
        for name, (value, tensor) in given.items():
            arrays[name] = np.require(tensor.numpy(), requirements=["C", "ALIGNED"])
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor(
                "memory", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name
            )
        message = to_proto(model).SerializeToString()
    finally:
        for value, tensor in given.values():
            value.const_value = tensor
    options = kwargs.pop("sess_options", None) or onnxruntime.SessionOptions()
    weights = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in arrays.values()]
    options.add_external_initializers(list(arrays), weights)
    opened = open_raw(message, sess_options=options, **kwargs)
    opened.weights = weights  # they must live as long as the session
    return opened


def _taken_in_place(tensor: ir.TensorProtocol) -> bool:
    """Whether onnxruntime can read a tensor's numbers where they are, and it is worth it.

    It takes no arrays of texts, nor of ml_dtypes, whose types numpy does not know itself.
    """
    known = tensor.dtype != ir.DataType.STRING and tensor.dtype.numpy().isbuiltin == 1
    return known and tensor.nbytes >= _LARGE


@contextlib.contextmanager
def refusals(subject: str) -> Iterator[None]:
    """Raise errors of onnxruntime as GraphScaleError about `subject`, such as a file or a node."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):  # they have no common base class
            raise
        text = str(error).strip().splitlines()[0]
        running, _, reason = text.rpartition("Status Message: ")
        named = re.search(r"Name:'(.+?)'", running)
        node = f": node {named[1]!r}" if named else ""
        raise GraphScaleError(
            f"{subject}{node}: onnxruntime does not run it ({reason}); check the model"
        ) from error


def quiet_options() -> onnxruntime.SessionOptions:
    """Options of a session whose failures are told by errors of ours."""
    options = onnxruntime_for("a session").SessionOptions()
    options.log_severity_level = 4
    return options


def element_type(kind: str) -> np.dtype | None:
    """The numpy type of onnxruntime's name of a type, such as 'tensor(float16)'.

    None for what is no tensor (a sequence, an optional) and for elements that numpy does not have.
    """
    name = kind.removeprefix("tensor(").removesuffix(")").upper()
    return ir.DataType[name].numpy() if name in ir.DataType.__members__ else None


def _file(path: str | os.PathLike[str]) -> str:
    try:
        if Path(path).is_file():
            return str(path)
    except TypeError:
        raise GraphScaleError(
            f"{type(path).__name__} is no model; give the path of an ONNX file, or its bytes"
        ) from None
    raise GraphScaleError(f"{path} is not a file that exists; give the path of an ONNX file")


def _usable(provider: str) -> bool:
    """Whether a listed provider can work here.

    A CUDA build of onnxruntime lists CUDA on machines without a GPU, too, and warns when it is
    asked for.
    """
    return provider != "CUDAExecutionProvider" or any(
        os.path.exists(device) for device in ("/dev/nvidiactl", "/dev/dxg")
    )
