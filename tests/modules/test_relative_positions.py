"""Attention with relative positions: the table and its indices follow the size of the map."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale

from .rescaled import shrink

SIZE = 12
EXAMPLE = torch.randn(2, 3, 2 * SIZE, 2 * SIZE)


def pixels(size: int, step: int = 1) -> torch.Tensor:
    line = torch.arange(0, size, step)
    return torch.cartesian_prod(line, line)


def offsets(size: int) -> torch.Tensor:
    apart = pixels(size)[:, None] - pixels(size)[None] + size - 1
    return apart[..., 0] * (2 * size - 1) + apart[..., 1]


def distances(size: int, step: int = 1) -> torch.Tensor:
    apart = (pixels(size, step)[:, None] - pixels(size)[None]).abs()
    return apart[..., 0] * size + apart[..., 1]


class Attention(nn.Module):
    """Attention among the pixels of a map, of which `step` lets queries be every second pixel."""

    def __init__(self, kind: str, step: int = 1) -> None:
        super().__init__()
        self.kind, self.step = kind, step
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.qkv = nn.Linear(8, 24)
        self.remembered = {}
        if kind == "offsets":  # a flat index into a table of (offset, head), as in Swin
            self.table = nn.Parameter(torch.randn((2 * SIZE - 1) ** 2, 2))
            index = offsets(SIZE).flatten()
        else:  # as in LeViT
            self.table = nn.Parameter(torch.randn(2, SIZE**2))
            index = distances(SIZE, step)
        self.register_buffer("index", index, persistent=False)
        self.head = nn.Linear(8, 2)

    def bias(self, queries: int, keys: int) -> torch.Tensor:
        if self.kind == "offsets":
            return self.table[self.index].view(queries, keys, 2).permute(2, 0, 1).unsqueeze(0)
        if not self.training and "bias" not in self.remembered:
            self.remembered["bias"] = self.table[:, self.index]
        return self.table[:, self.index] if self.training else self.remembered["bias"]

    def train(self, mode: bool = True) -> nn.Module:
        self.remembered = {}
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        batch, _, height, width = x.shape
        tokens = self.qkv(x.permute(0, 2, 3, 1))
        q = tokens[:, :: self.step, :: self.step, :8].reshape(batch, -1, 2, 4).transpose(1, 2)
        k, v = (
            each.reshape(batch, -1, 2, 4).transpose(1, 2)
            for each in tokens[..., 8:].split(8, dim=-1)
        )
        scores = q @ k.transpose(-2, -1) + self.bias(q.shape[2], height * width)
        out = scores.softmax(-1) @ v
        return self.head(out.transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize(("kind", "step"), [("offsets", 1), ("distances", 1), ("distances", 2)])
def test_the_table_and_its_indices_follow_the_map(kind: str, step: int) -> None:
    torch.manual_seed(0)
    target = Attention(kind, step)
    small = shrink(target, EXAMPLE, init="resize")
    pixels = small.conv(torch.zeros(1, 3, *small.graphscale_plan.image_size)).shape[-1]
    assert pixels < SIZE
    if kind == "offsets":
        assert torch.equal(small.index, offsets(pixels).flatten())
        shape, wanted = (2 * SIZE - 1, 2 * pixels - 1), small.table.T
    else:
        assert torch.equal(small.index, distances(pixels, step))
        shape, wanted = (SIZE, pixels), small.table
    # The small table is the one whose interpolation is nearest to the target's.
    table = (target.table.T if kind == "offsets" else target.table).reshape(2, shape[0], shape[0])
    line = F.interpolate(torch.eye(shape[1])[None], shape[0], mode="linear")[0].T.double()
    nearest = torch.linalg.pinv(line) @ table.detach().double() @ torch.linalg.pinv(line).T
    found = wanted.detach().double().reshape(nearest.shape)
    torch.testing.assert_close(found, nearest, rtol=1e-4, atol=1e-5)
    grown = graphscale.grow(small)
    assert torch.equal(grown.index, target.index)
    assert grown.table.shape == target.table.shape
    restored = graphscale.grow(small.state_dict(), target=target)
    assert torch.equal(restored.table, grown.table)
    grown.load_state_dict(target.state_dict())
    torch.testing.assert_close(grown.eval()(EXAMPLE), copy.deepcopy(target).eval()(EXAMPLE))


def test_what_an_evaluating_module_remembers_is_forgotten() -> None:
    target = Attention("distances").eval()
    small = shrink(target, EXAMPLE)
    assert not small.remembered
    assert not target.remembered
    assert small(torch.zeros(1, 3, *small.graphscale_plan.image_size)).shape == (1, 2)


class OneWindow(nn.Module):
    """Attention in windows as TinyViT has it, on a map that is one window, and its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.window_size = SIZE
        self.N = SIZE**2
        self.resolution = (SIZE, SIZE)
        self.table = nn.Parameter(torch.randn(2, SIZE**2))
        self.register_buffer("attention_bias_idxs", distances(SIZE), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        assert x.shape[2:] == (self.window_size, self.window_size)
        tokens = x.reshape(-1, 8, self.N)
        biases = self.table[:, self.attention_bias_idxs]  # of two heads, one after the other
        scores = tokens.transpose(1, 2) @ tokens + biases[0] + biases[1]
        out = tokens @ scores.softmax(-1).transpose(1, 2)
        return out.reshape(-1, 8, *self.resolution).mean((2, 3))


def test_the_sizes_that_attention_remembers_follow_the_map() -> None:
    target = OneWindow()
    small = shrink(target, EXAMPLE)
    pixels = small.graphscale_plan.image_size[0] // 2
    assert (small.window_size, small.N, small.resolution) == (pixels, pixels**2, (pixels, pixels))
    grown = graphscale.grow(small)
    assert (grown.window_size, grown.N, grown.resolution) == (SIZE, SIZE**2, (SIZE, SIZE))


def logarithms(size: int) -> torch.Tensor:
    line = torch.linspace(-8, 8, 2 * size - 1)
    line = line.sign() * torch.log2(1 + line.abs()) / 3
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)


class ComputedBiases(nn.Module):
    """Attention as in the second Swin: layers make the table of biases, of offsets' logarithms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.layers = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1, bias=False))
        self.register_buffer("logarithms", logarithms(SIZE), persistent=False)
        self.register_buffer("index", offsets(SIZE), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(x).flatten(2)
        rows = self.layers(self.logarithms).view(-1, 1)
        bias = rows[self.index.view(-1)].view(*self.index.shape, -1).permute(2, 0, 1)
        scores = tokens.transpose(1, 2) @ tokens + 16 * torch.sigmoid(bias)
        return (tokens @ scores.softmax(-1).transpose(1, 2)).mean(2)


def test_logarithms_of_offsets_follow_the_map() -> None:
    torch.manual_seed(0)
    target = ComputedBiases()
    small = shrink(target, EXAMPLE, init="resize")
    pixels = small.graphscale_plan.image_size[0] // 2
    assert pixels < SIZE
    torch.testing.assert_close(small.logarithms, logarithms(pixels), rtol=1e-5, atol=1e-6)
    assert torch.equal(small.index, offsets(pixels))
    grown = graphscale.grow(small)
    torch.testing.assert_close(grown.logarithms, target.logarithms, rtol=1e-5, atol=1e-6)
    for name in ("layers.0.weight", "layers.2.weight"):
        assert torch.equal(grown.state_dict()[name], target.state_dict()[name])
    grown.load_state_dict(target.state_dict())
    torch.testing.assert_close(grown.eval()(EXAMPLE), target.eval()(EXAMPLE))


class Bottleneck(nn.Module):
    """Attention as in bottleneck networks: a vector for each offset along height, and along width.

    Its numbers are moved from offsets to places by padding and cutting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.height = self.width = SIZE
        self.height_rel = nn.Parameter(torch.randn(2 * SIZE - 1, 8))
        self.width_rel = nn.Parameter(torch.randn(2 * SIZE - 1, 8))

    def along(self, q: torch.Tensor, vectors: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
        batch, rows, size, _ = q.shape
        x = (q @ vectors.transpose(-1, -2)).reshape(-1, size, 2 * size - 1)
        x = F.pad(F.pad(x, [0, 1]).flatten(1), [0, size - 1])
        x = x.reshape(-1, size + 1, 2 * size - 1)[:, :size, size - 1 :]
        x = x.reshape(batch, rows, 1, size, size).expand(-1, -1, rows, -1, -1)
        return x.permute(order)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(x).flatten(2)
        q = tokens.transpose(1, 2).reshape(x.shape[0], self.height, self.width, -1)
        bias = self.along(q, self.width_rel, (0, 1, 3, 2, 4))
        bias = bias + self.along(q.transpose(1, 2), self.height_rel, (0, 3, 1, 4, 2))
        pixels = self.height * self.width
        scores = tokens.transpose(1, 2) @ tokens + bias.reshape(-1, pixels, pixels)
        return (tokens @ scores.softmax(-1).transpose(1, 2)).mean(2)


def test_vectors_for_offsets_follow_the_map() -> None:
    torch.manual_seed(0)
    target = Bottleneck()
    small = shrink(target, EXAMPLE, init="resize")
    pixels = small.graphscale_plan.image_size[0] // 2
    assert (small.height, small.width) == (pixels, pixels) < (SIZE, SIZE)
    grown = graphscale.grow(small)
    assert (grown.height, grown.width) == (SIZE, SIZE)
    for name in ("height_rel", "width_rel"):
        given = small.state_dict()[name]
        assert len(given) == 2 * pixels - 1
        wanted = F.interpolate(given.T[None].double(), 2 * SIZE - 1, mode="linear")[0].T
        torch.testing.assert_close(grown.state_dict()[name].double(), wanted, rtol=1e-5, atol=1e-6)
    restored = graphscale.grow(small.state_dict(), target=target)
    assert torch.equal(restored.width_rel, grown.width_rel)
    grown.load_state_dict(target.state_dict())
    torch.testing.assert_close(grown.eval()(EXAMPLE), target.eval()(EXAMPLE))


def token_offsets(size: int) -> torch.Tensor:
    values = (2 * size - 1) ** 2
    index = torch.full((1 + size**2, 1 + size**2), values + 2)
    index[0, 1:], index[1:, 0], index[1:, 1:] = values, values + 1, offsets(size)
    return index


class TokenAttention(nn.Module):
    """Attention as in BEiT: a class token before the pixels has three values of its own.

    Where `pads`, the pixels' values are computed by layers, and the token's are zeros.
    """

    def __init__(self, pads: bool) -> None:
        super().__init__()
        self.pads = pads
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        if pads:
            self.layers = nn.Linear(2, 1)
            self.register_buffer("logarithms", logarithms(SIZE), persistent=False)
            self.register_buffer("relative_position_index", offsets(SIZE), persistent=False)
            return
        self.window_size = (SIZE, SIZE)
        self.num_relative_distance = (2 * SIZE - 1) ** 2 + 3
        self.relative_position_bias_table = nn.Parameter(torch.randn(self.num_relative_distance, 1))
        index = token_offsets(SIZE)
        self.register_buffer("relative_position_index", index, persistent=False)

    def bias(self) -> torch.Tensor:
        index = self.relative_position_index
        if self.pads:
            rows = self.layers(self.logarithms).view(-1, 1)[index.view(-1)]
            return F.pad(rows.view(*index.shape, -1).permute(2, 0, 1), [1, 0, 1, 0])
        tokens = self.window_size[0] * self.window_size[1] + 1
        rows = self.relative_position_bias_table[index.view(-1)]
        return rows.view(tokens, tokens, -1).permute(2, 0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)
        scores = x @ x.transpose(1, 2) + self.bias()
        return (scores.softmax(-1) @ x)[:, 0]


def test_a_token_keeps_its_values() -> None:
    torch.manual_seed(0)
    target = TokenAttention(pads=False)
    small = shrink(target, EXAMPLE, init="resize")
    pixels = small.graphscale_plan.image_size[0] // 2
    assert small.window_size == (pixels, pixels) < (SIZE, SIZE)
    assert torch.equal(small.relative_position_index, token_offsets(pixels))
    table = small.relative_position_bias_table.detach().double()
    assert len(table) == small.num_relative_distance == (2 * pixels - 1) ** 2 + 3
    grown = graphscale.grow(small)
    assert torch.equal(grown.relative_position_index, target.relative_position_index)
    found = grown.relative_position_bias_table
    assert torch.equal(found[-3:], target.relative_position_bias_table[-3:])
    side = 2 * SIZE - 1
    wanted = F.interpolate(table[:-3].T.reshape(1, 1, 2 * pixels - 1, -1), side, mode="bilinear")
    torch.testing.assert_close(found[:-3, 0].double(), wanted.flatten(), rtol=1e-4, atol=1e-5)
    restored = graphscale.grow(small.state_dict(), target=target)
    assert torch.equal(restored.relative_position_bias_table, found)
    grown.load_state_dict(target.state_dict())
    torch.testing.assert_close(grown.eval()(EXAMPLE), target.eval()(EXAMPLE))


def test_biases_padded_for_a_token() -> None:
    target = TokenAttention(pads=True)
    small = shrink(target, EXAMPLE)
    pixels = small.graphscale_plan.image_size[0] // 2
    torch.testing.assert_close(small.logarithms, logarithms(pixels), rtol=1e-5, atol=1e-6)
    grown = graphscale.grow(small)
    grown.load_state_dict(target.state_dict())
    torch.testing.assert_close(grown.eval()(EXAMPLE), target.eval()(EXAMPLE))
