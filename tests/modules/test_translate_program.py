"""A translated program computes what torch computes; other programs are left to torch.onnx."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphscale.modules.example import Example
from graphscale.modules.functional_program import functional_program
from graphscale.modules.module_path import module_path
from graphscale.modules.translate_program import translate_program


class Calls(nn.Module):
    """A module whose forward is a function."""

    def __init__(self, function, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor):
        return self.function(self, x)


def translated(module: nn.Module, x: torch.Tensor) -> ir.Model | None:
    program = functional_program(module.eval(), Example(x).batched())
    assert program is not None
    return translate_program(program)


def run(model: ir.Model, x: torch.Tensor) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})


def check(module: nn.Module, shape: tuple[int, ...] = (2, 4, 8, 12)) -> ir.Model:
    """Compare with torch, for the batch of the example and for another one."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.1, 0.4)
    model = translated(module, torch.randn(shape))
    assert model is not None
    for batch in (shape[0], 3):
        x = torch.randn(batch, *shape[1:])
        with torch.no_grad():
            wanted = module(x.clone())
        wanted = [wanted] if isinstance(wanted, torch.Tensor) else list(wanted)
        found = run(model, x)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted):
            assert one.shape == tuple(other.shape)
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)
    return model


def test_layers() -> None:
    check(
        nn.Sequential(
            nn.Conv2d(4, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 4, padding="same", groups=2),
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, dilation=2),
            nn.AvgPool2d(2, 1, 1, count_include_pad=False),
            nn.Conv2d(6, 4, (1, 3), dilation=(1, 2), padding=(0, 2)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(4, 3),
        )
    )


def test_one_axis_and_three() -> None:
    one = nn.Sequential(nn.Conv1d(4, 5, 3, 2), nn.BatchNorm1d(5), nn.MaxPool1d(2), nn.AvgPool1d(2))
    check(one, (2, 4, 24))
    check(nn.Sequential(nn.Conv3d(2, 3, 2), nn.AvgPool3d(2), nn.MaxPool3d(2)), (2, 2, 5, 6, 7))


def test_adaptive_pooling_to_several_pixels() -> None:
    def forward(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        small = x[:, :, :1, :2]
        pools = [F.adaptive_avg_pool2d(x, size) for size in ((4, 3), (7, 12), (8, 12), 1)]
        uneven = [F.adaptive_avg_pool2d(x, (5, 7)), F.adaptive_avg_pool1d(x[:, 0], 5)]
        return [*pools, *uneven, F.adaptive_avg_pool2d(small, (3, 5))]

    check(Calls(forward))


ELEMENTWISE = [
    *(F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.mish, F.elu, F.leaky_relu, F.relu6, F.hardtanh),
    *(torch.sigmoid, torch.tanh, torch.exp, torch.erf, torch.floor, torch.neg, torch.sin),
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0),
    lambda x: (x.abs() + 1).sqrt() * (x.abs() + 1).rsqrt() * 2 - 1,
    lambda x: (1 - x) / 3 + x**2,
    lambda x: torch.maximum(x, x.mean((2, 3), keepdim=True)) + x.sum(1, True) + x.amax(-1, True),
    lambda x: x.softmax(1),
    lambda x: torch.addcmul(x, x.mean(1, keepdim=True), x),
]


def test_element_by_element() -> None:
    check(Calls(lambda module, x: [function(x) for function in ELEMENTWISE]))


MOVES = [
    lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4),
    lambda x: x.view(x.shape[0] * 2, 2, 8, 12).transpose(1, 3),
    lambda x: x.flatten(2).transpose(-1, -2).flatten(1, 2),
    lambda x: torch.cat([x[:, :2], x[:, 2:, ::1] * 2, x[:, -1:]], 1),
    lambda x: x.chunk(2, 1)[1] + x.split([1, 3], 1)[0] + x[:, :, :, None, 2:5].squeeze(3).mean(),
    lambda x: torch.stack(x.unbind(1)[::2], 1) + x[:, 3].unsqueeze(1).expand(-1, 2, -1, -1),
    lambda x: F.pad(x, (1, 2, 0, 3), value=0.5) + F.pad(F.pad(x, (1, 2)), (0, 0, 2, 1), "reflect"),
    lambda x: F.pad(x, (2, 1, 0, 0), "replicate") + F.pad(x, (2, 1, 0, 0), "circular"),
    lambda x: F.interpolate(x, scale_factor=2) + F.interpolate(x, (16, 24), mode="bilinear"),
    lambda x: F.interpolate(x, (5, 30), mode="bilinear", align_corners=True),
    lambda x: F.interpolate(x, (5, 30), mode="bicubic"),
    lambda x: F.interpolate(x, (5, 30), mode="bicubic", align_corners=True),
    lambda x: F.interpolate(x, (5, 30), mode="bicubic", antialias=True),
    lambda x: F.interpolate(x, (5, 30), mode="bilinear", antialias=True),
    lambda x: torch.roll(x, (-3, 2), (2, 3)) + torch.roll(x, 1, -1),
    lambda x: x.unfold(2, 4, 2).unfold(3, 5, 3),
]


def test_moving_elements() -> None:
    check(Calls(lambda module, x: [function(x) for function in MOVES]))


def test_tokens() -> None:
    def forward(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        tokens = module.norm(x.flatten(2).transpose(1, 2))
        q, k, v = (
            module.qkv(tokens).reshape(x.shape[0], -1, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        )
        out = F.scaled_dot_product_attention(q, k, v) + (q @ k.transpose(-2, -1)) @ v
        return out.transpose(1, 2).reshape(x.shape[0], -1, 4)

    check(Calls(forward, norm=nn.LayerNorm(4), qkv=nn.Linear(4, 12)))


def test_several_outputs_and_names() -> None:
    module = Calls(
        lambda module, x: (module.body(x), module.body(x).mean((2, 3))),
        body=nn.Sequential(nn.Conv2d(4, 4, 3), nn.SiLU()),
    )
    model = check(module)
    weights = {name for name in model.graph.initializers if not name.endswith("operand")}
    assert weights == {"body.0.weight", "body.0.bias"}
    assert {module_path(node) for node in model.graph} == {"body.0", "body.1", ""}
    assert [value.shape[0] for value in model.graph.outputs] == ["batch", "batch"]
    names = [value.name for node in model.graph for value in node.outputs]
    assert len(set(names)) == len(names)


LEFT = [
    lambda module, x: torch.linalg.inv(x[:, :, :4, :4]),  # no translation
    lambda module, x: torch.add(x, x, alpha=2),  # an argument without one
    lambda module, x: x,  # nothing is computed
    lambda module, x: module.norm(x),  # no weights
]


@pytest.mark.parametrize("function", LEFT)
def test_what_is_left_to_torch(function) -> None:
    module = Calls(function, norm=nn.LayerNorm(12, elementwise_affine=False))
    assert translated(module, torch.randn(2, 4, 8, 12)) is None
