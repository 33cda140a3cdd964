"""The layers of benchmarks/fft_conv_cuda.py and the candidates that compute them on a GPU.

`Layer` describes a convolution, `tensors` makes its inputs; `ours`, `cudnn` and `in_onnxruntime`
return functions that run it; `error` compares an output with float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from graphscale.core.runtime import session
from graphscale.layers.operator import OPERATORS


@dataclass(frozen=True)
class Layer:
    """A convolution with stride 1, equal sizes in all `dims` spatial dimensions."""

    batch: int
    in_channels: int
    out_channels: int
    size: int
    kernel: int
    groups: int = 1
    pad: int = 0
    dims: int = 2

    def __str__(self) -> str:
        kind = "depthwise" if self.groups > 1 else "dense"
        image, kernel = ("x".join([str(n)] * self.dims) for n in (self.size, self.kernel))
        return (
            f"{kind} {self.in_channels}->{self.out_channels}, {image}, batch {self.batch}: {kernel}"
        )

    @property
    def attributes(self) -> dict[str, object]:
        """FFTConv's attributes."""
        return {"group": self.groups, "pads": [self.pad] * (2 * self.dims)}


def depthwise(batch: int, channels: int, size: int, kernel: int) -> Layer:
    """A depthwise layer that keeps the image's size."""
    return Layer(batch, channels, channels, size, kernel, channels, kernel // 2)


def tensors(layer: Layer, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, weight and the gradient to the output, normally distributed."""
    generator = torch.Generator("cuda").manual_seed(0)
    random = functools.partial(torch.randn, generator=generator, device="cuda")
    x = random(layer.batch, layer.in_channels, *[layer.size] * layer.dims)
    weight = random(
        layer.out_channels, layer.in_channels // layer.groups, *[layer.kernel] * layer.dims
    )
    out = layer.size + 2 * layer.pad - layer.kernel + 1
    grad = random(layer.batch, layer.out_channels, *[out] * layer.dims)
    return x.to(dtype), weight.to(dtype), grad.to(dtype)


def passes(layer: Layer, given: tuple[torch.Tensor, ...]) -> dict[str, tuple]:
    """graphscale's operator for each of the three passes, and its inputs."""
    x, weight, grad = given
    return {
        "FFTConv": (x, weight, None),
        "FFTConvGradInput": (grad, weight, x),
        "FFTConvGradWeight": (grad, x, weight),
    }


def ours(layer: Layer, given: tuple[torch.Tensor, ...], algorithms: dict[str, str]) -> dict:
    """Functions that run forward, and all three passes, by FFTConv with these algorithms."""

    def run(names: list[str]) -> list[torch.Tensor]:
        return [
            OPERATORS[n](*all_passes[n], **layer.attributes, algorithm=algorithms[n]) for n in names
        ]

    all_passes = passes(layer, given)
    return {
        "forward": lambda: run(["FFTConv"]),
        "round_trip": lambda: run(list(all_passes)),
    }


def cudnn(layer: Layer, given: tuple[torch.Tensor, ...], channels_last: bool) -> dict:
    """Functions that run forward, and all three passes, by torch with cuDNN."""
    if channels_last:
        given = tuple(t.contiguous(memory_format=torch.channels_last) for t in given)
    x, weight, grad = given
    convolve = (functional.conv1d, functional.conv2d)[layer.dims - 1]
    pads, ones, zeros = ([n] * layer.dims for n in (layer.pad, 1, 0))

    def forward() -> list[torch.Tensor]:
        return [convolve(x, weight, None, 1, layer.pad, 1, layer.groups)]

    def round_trip() -> list[torch.Tensor]:
        return forward() + list(
            torch.ops.aten.convolution_backward(
                grad, x, weight, None, ones, pads, ones, False, zeros, layer.groups,
                [True, True, False],
            )
        )  # fmt: skip

    return {"forward": forward, "round_trip": round_trip}


def in_onnxruntime(
    layer: Layer, x, weight, tf32: bool, algorithm: str | None
) -> Callable[[], object]:
    """A function that runs Conv, or FFTConv by an algorithm, in onnxruntime on torch's tensors."""
    import onnx
    import onnxruntime

    domain = "" if algorithm is None else "graphscale"
    chosen = {} if algorithm is None else {"algorithm": algorithm}
    node = onnx.helper.make_node(
        "FFTConv" if domain else "Conv",
        ["x", "w"],
        ["y"],
        domain=domain,
        **layer.attributes,
        **chosen,
    )
    value = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    initializer = onnx.numpy_helper.from_array(weight.cpu().numpy(), "w")
    inputs, outputs = [value("x", shape=list(x.shape))], [value("y", shape=None)]
    graph = onnx.helper.make_graph([node], "layer", inputs, outputs, [initializer])
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("graphscale", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    provider = {
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": str(int(tf32)),
        "user_compute_stream": str(torch.cuda.current_stream().cuda_stream),
    }
    opened = session(
        model.SerializeToString(),
        providers=[("CUDAExecutionProvider", provider), "CPUExecutionProvider"],
    )
    if opened.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("onnxruntime has no CUDA provider here")
    binding = opened.io_binding()
    binding.bind_input("x", "cuda", 0, "float32", list(x.shape), x.data_ptr())
    binding.bind_output("y", "cuda", 0)
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return lambda: opened.run_with_iobinding(binding, options)


def error(y: torch.Tensor, layer: Layer, x, weight) -> float:
    """The relative error, in the norm, of the first image's output y, against float64."""
    convolve = (functional.conv1d, functional.conv2d)[layer.dims - 1]
    wanted = convolve(x[:1].double(), weight.double(), None, 1, layer.pad, 1, layer.groups)
    return ((y[:1].double() - wanted).norm() / wanted.norm()).item()
