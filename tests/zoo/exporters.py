"""ONNX models of the networks, by either of torch's exporters, kept on disk."""

import contextlib
import hashlib
import inspect
import io
import os
import warnings
from functools import partial
from pathlib import Path

import onnx
import torch

from . import blocks
from .networks import NETWORKS, build

CACHE = Path(__file__).parents[2] / ".cache" / "zoo"


def fingerprint(name: str, arguments: tuple) -> str:
    """Changes with the arguments, the network's own file, its blocks, this file and torch."""
    builder = NETWORKS[name].build
    function = builder.func if isinstance(builder, partial) else builder
    bound = (builder.args, builder.keywords) if isinstance(builder, partial) else ()
    paths = (inspect.getsourcefile(function), blocks.__file__, __file__)
    sources = b"".join(Path(path).read_bytes() for path in paths)
    text = repr((function.__qualname__, bound, NETWORKS[name].input_size, arguments))
    return hashlib.sha256(f"{text} {torch.__version__}".encode() + sources).hexdigest()[:16]


def export(
    name: str,
    exporter: str = "dynamo",
    *,
    opset: int | None = None,
    width: float = 1.0,
    num_classes: int | None = None,
    batch: str | int = "symbolic",
    fold: bool = True,
    dtype: torch.dtype = torch.float32,
) -> onnx.ModelProto:
    """An ONNX model of the network, kept in .cache/zoo for the next time.

    exporter: 'dynamo' or 'torchscript' (the older one). batch: 'symbolic' or a number.
    fold: let the exporter fold constants and BatchNorm; without, both stay as they were traced.
    """
    arguments = (name, exporter, opset, width, num_classes, batch, fold, str(dtype))
    path = CACHE / f"{name}-{exporter}-{fingerprint(name, arguments)}.onnx"
    if not path.exists():
        module = build(name, width, num_classes).to(dtype)
        size = NETWORKS[name].input_size
        count = 2 if batch == "symbolic" else int(batch)
        model = export_module(
            module, torch.randn(count, 3, size, size, dtype=dtype), exporter, opset, batch, fold
        )
        CACHE.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(f".{os.getpid()}")
        onnx.save(model, partial_path)
        partial_path.rename(path)
    return onnx.load(path)


def export_module(
    module: torch.nn.Module,
    example: torch.Tensor,
    exporter: str,
    opset: int | None = None,
    batch: str | int = "symbolic",
    fold: bool = True,
) -> onnx.ModelProto:
    """An ONNX model of any torch module with one picture as its input."""
    dynamic = batch == "symbolic"
    options: dict = {"opset_version": opset, "input_names": ["image"]}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
            program = torch.onnx.export(
                module, (example,), dynamo=True, dynamic_shapes=shapes, optimize=fold, **options
            )
            return program.model_proto
        # PRESERVE keeps the older exporter from folding BatchNorm into the convolution before it.
        mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
        stream = io.BytesIO()
        torch.onnx.export(
            module,
            (example,),
            stream,
            dynamo=False,
            training=mode,
            do_constant_folding=fold,
            dynamic_axes={"image": {0: "batch"}} if dynamic else None,
            **options,
        )
        return onnx.load_from_string(stream.getvalue())
