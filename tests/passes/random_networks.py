"""Random convolutional networks: one per seed, of the parts that real networks are made of.

Learned weights have a dot in their names, as `conv_3.weight`; other initializers hold numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, prod

import numpy as np
import onnx
from onnx import helper

from tests.zoo.handmade import Graph

OPSETS = (7, 9, 10, 11, 12, 13, 14, 17, 18, 20, 21, 23)
BY_RANK = {1: (32, 120), 2: (18, 72), 3: (12, 22)}  # smallest and largest input size


@dataclass(frozen=True)
class Map:
    """A feature map while the graph is built: its name, channels and spatial sizes."""

    name: str
    channels: int
    sizes: tuple[int, ...]


@dataclass
class RandomNetwork:
    """A model, and what a test must know to judge its rescaling.

    Attributes:
        interfaces: Fully-connected weight -> (the map that it reads, the order in which the map's
            dimensions C, H, W are flattened, the weight's dimension of rows).
        parts: Names of the parts it was made of, for messages.
    """

    seed: int
    model: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    interfaces: dict[str, tuple[str, tuple[int, ...], int]] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)


def random_network(seed: int) -> RandomNetwork:
    """The network of a seed: always the same one."""
    return _Builder(seed).build()


class _Builder:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.result = RandomNetwork(seed)
        self.opset = self.random.choice(OPSETS)
        self.graph = Graph(self.opset)
        self.graph.random = np.random.default_rng(seed)
        self.rank = self.random.choices((1, 2, 3), (8, 86, 6))[0]
        self.output_shape: list[str | int] = []

    # --- choices ----------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, *choices: object) -> object:
        return self.random.choice(choices)

    # --- nodes ------------------------------------------------------------------------------------

    def ints(self, values: list[int]) -> str:
        """A constant of int64 numbers, as an initializer or a Constant node."""
        array = np.asarray(values, np.int64)
        name = f"numbers_{len(self.graph.weights)}_{len(self.graph.nodes)}"
        if self.opset >= 9 and self.chance(0.3):
            tensor = onnx.numpy_helper.from_array(array, name)
            self.graph.nodes.append(
                helper.make_node("Constant", [], [name], name=f"make_{name}", value=tensor)
            )
            return name
        return self.graph.constant(name, array)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        return self.graph.op(kind, *inputs, **attributes)

    def same(self, x: Map, kind: str, *inputs: str, **attributes: object) -> Map:
        """A node that keeps the shape."""
        return Map(self.op(kind, x.name, *inputs, **attributes), x.channels, x.sizes)

    def conv(
        self,
        x: Map,
        channels: int,
        kernel: int | tuple[int, ...],
        stride: int = 1,
        pads: str | list[int] = "same",
        group: int = 1,
        dilation: int = 1,
        bias: bool | None = None,
    ) -> Map:
        """A convolution; `pads` is 'same' (half the kernel), 'valid', numbers or an auto_pad."""
        kernel = (kernel,) * self.rank if isinstance(kernel, int) else kernel
        spans = [(k - 1) * dilation + 1 for k in kernel]
        attributes: dict[str, object] = {}
        numbers = pads if isinstance(pads, list) else [0] * 2 * self.rank
        if pads == "same":
            numbers = [(span - 1) // 2 for span in spans] + [span // 2 for span in spans]
        if isinstance(pads, str) and pads not in ("same", "valid"):
            attributes["auto_pad"] = pads
        elif any(numbers) or self.chance(0.3):
            attributes["pads"] = numbers
        if stride > 1 or self.chance(0.3):
            attributes["strides"] = [stride] * self.rank
        if dilation > 1:
            attributes["dilations"] = [dilation] * self.rank
        if group > 1:
            attributes["group"] = group
        if self.chance(0.7):
            attributes["kernel_shape"] = list(kernel)
        if isinstance(pads, str) and pads.startswith("SAME"):
            sizes = tuple(ceil(size / stride) for size in x.sizes)
        else:
            sides = zip(numbers[: self.rank], numbers[self.rank :], strict=True)
            sizes = tuple(
                (size + sum(pair) - span) // stride + 1
                for size, pair, span in zip(x.sizes, sides, spans, strict=True)
            )
        assert min(sizes) > 0
        name = f"conv_{len(self.graph.nodes)}"
        inputs = [self.graph.normal(f"{name}.weight", channels, x.channels // group, *kernel)]
        if self.chance(0.5) if bias is None else bias:
            inputs.append(self.graph.normal(f"{name}.bias", channels))
        return Map(self.op("Conv", x.name, *inputs, **attributes), channels, sizes)

    def active(self, x: Map, norm: bool | None = None) -> Map:
        """BatchNormalization (perhaps) and an activation."""
        if self.chance(0.5) if norm is None else norm:
            x = Map(self.graph.norm(x.name, x.channels), x.channels, x.sizes)
        kind = self.random.choices(
            ("Relu", "LeakyRelu", "HardSigmoid", "PRelu", "Swish", "none"), (8, 1, 1, 1, 1, 1)
        )[0]
        if kind == "none":
            return x
        if kind == "PRelu":
            shape = (x.channels, *(1 for _ in x.sizes))
            slope = self.graph.normal(f"prelu_{len(self.graph.nodes)}.slope", *shape)
            return self.same(x, "PRelu", slope)
        if kind == "Swish":
            return self.same(x, "Mul", self.op("Sigmoid", x.name))
        return self.same(x, kind)

    def pool(self, x: Map, kind: str, kernel: int, stride: int, pads: int, ceil_mode: bool) -> Map:
        attributes: dict[str, object] = {"kernel_shape": [kernel] * self.rank}
        if stride > 1 or self.chance(0.5):
            attributes["strides"] = [stride] * self.rank
        if pads or self.chance(0.3):
            attributes["pads"] = [pads] * 2 * self.rank
        ceil_mode = ceil_mode and self.opset >= 10
        if ceil_mode:
            attributes["ceil_mode"] = 1
        if kind == "AveragePool" and self.chance(0.3):
            attributes["count_include_pad"] = 1
        sizes = []
        for size in x.sizes:
            steps = (size + 2 * pads - kernel) / stride
            out = (ceil(steps) if ceil_mode else int(steps // 1)) + 1
            sizes.append(out - (ceil_mode and (out - 1) * stride >= size + pads))
        return Map(self.op(kind, x.name, **attributes), x.channels, tuple(sizes))

    def concat(self, *maps: Map) -> Map:
        name = self.op("Concat", *(each.name for each in maps), axis=1)
        return Map(name, sum(each.channels for each in maps), maps[0].sizes)

    def crop(self, x: Map, begins: list[int], ends: list[int]) -> Map:
        """Slice off some pixels on each side."""
        axes = list(range(2, 2 + self.rank))
        sizes = tuple(s - b - e for s, b, e in zip(x.sizes, begins, ends, strict=True))
        forms = [
            [b + s for b, s in zip(begins, sizes, strict=True)],
            [-e if e else 2**31 - 1 for e in ends],
        ]
        stops = self.pick(*forms)
        if self.opset < 10:
            name = self.op("Slice", x.name, starts=begins, ends=stops, axes=axes)
        else:
            inputs = [self.ints(begins), self.ints(stops), self.ints(axes)]
            name = self.op("Slice", x.name, *inputs)
        return Map(name, x.channels, sizes)

    def pad(self, x: Map, begins: list[int], ends: list[int]) -> Map:
        pads = [0, 0, *begins, 0, 0, *ends]
        mode = {"mode": self.pick("constant", "reflect", "edge")} if self.chance(0.5) else {}
        if self.opset < 11:
            name = self.op("Pad", x.name, pads=pads, **mode)
        else:
            name = self.op("Pad", x.name, self.ints(pads), **mode)
        sizes = tuple(s + b + e for s, b, e in zip(x.sizes, begins, ends, strict=True))
        return Map(name, x.channels, sizes)

    def resize(self, x: Map, sizes: tuple[int, ...]) -> Map:
        scales = [1.0, 1.0, *(after / before for after, before in zip(sizes, x.sizes, strict=True))]
        exact = all(
            int(s * float(np.float32(f))) == a for s, f, a in zip(x.sizes, scales[2:], sizes)
        )
        linear = self.rank < 3 and self.chance(0.5)
        mode = "linear" if linear else "nearest"
        if self.opset < 9:
            assert exact
            name = self.op("Upsample", x.name, scales=scales, mode=mode)
            return Map(name, x.channels, sizes)
        wanted = self.graph.constant(f"scales_{len(self.graph.nodes)}", np.float32(scales))
        if self.opset < 11:
            assert exact
            kind = "Upsample" if self.opset == 9 else "Resize"
            return Map(self.op(kind, x.name, wanted, mode=mode), x.channels, sizes)
        attributes = {"mode": mode}
        if self.chance(0.6):
            attributes["coordinate_transformation_mode"] = self.pick(
                "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"
            )
        region = self.graph.constant(f"roi_{len(self.graph.nodes)}", np.zeros(0, np.float32))
        if exact and self.chance(0.5):
            inputs = [region, wanted]
        else:
            empty = self.graph.constant(f"none_{len(self.graph.nodes)}", np.zeros(0, np.float32))
            empty = "" if self.opset >= 13 else empty
            batch = self.op("Shape", x.name)
            if self.chance(0.5):
                first = self._gather(batch, 0)
                rest = self.ints([x.channels, *sizes])
                whole = self.op("Concat", first, rest, axis=0)
            else:
                head = self._slice_numbers(batch, 0, 2)
                whole = self.op("Concat", head, self.ints(list(sizes)), axis=0)
            inputs = [region if self.opset < 13 else "", empty, whole]
        return Map(self.op("Resize", x.name, *inputs, **attributes), x.channels, sizes)

    def _gather(self, numbers: str, index: int) -> str:
        """One number of a shape, as a vector."""
        if self.chance(0.5):
            return self.op("Gather", numbers, self.ints([index]), axis=0)
        scalar = self.graph.constant(f"index_{len(self.graph.nodes)}", np.int64(index))
        number = self.op("Gather", numbers, scalar, axis=0)
        return self.unsqueeze(number, [0])

    def unsqueeze(self, x: str, axes: list[int]) -> str:
        if self.opset < 13:
            return self.op("Unsqueeze", x, axes=axes)
        return self.op("Unsqueeze", x, self.ints(axes))

    def _slice_numbers(self, numbers: str, start: int, stop: int) -> str:
        if self.opset < 10:
            return self.op("Slice", numbers, starts=[start], ends=[stop], axes=[0])
        return self.op("Slice", numbers, self.ints([start]), self.ints([stop]), self.ints([0]))

    def mean(self, x: str, axes: list[int], keepdims: int) -> str:
        if self.opset < 18:
            return self.op("ReduceMean", x, axes=axes, keepdims=keepdims)
        return self.op("ReduceMean", x, self.ints(axes), keepdims=keepdims)

    # --- parts ------------------------------------------------------------------------------------

    def stem(self, x: Map) -> Map:
        kernel = self.pick(3, 3, 5, 7, 7, 9, 11)
        stride = self.pick(1, 1, 2, 2, 3, 4)
        kernel = min(kernel, min(x.sizes))
        if stride > kernel or (self.rank == 3 and kernel > 5):
            kernel, stride = 3, min(stride, 3)
        pads = self.pick("same", "same", "valid", "SAME_UPPER", "SAME_LOWER")
        return self.active(self.conv(x, self.pick(4, 6, 8), kernel, stride, pads))

    def plain(self, x: Map) -> Map:
        kernel: int | tuple[int, ...] = self.pick(1, 2, 3, 3, 3, 4, 5, 7, 9)
        stride = self.pick(1, 1, 1, 2, 3)
        dilation = self.pick(1, 1, 1, 2, 3)
        if self.rank == 2 and self.chance(0.3):
            kernel = self.pick((1, 7), (7, 1), (3, 5), (1, 3), (5, 1), (2, 3))
        largest = max(kernel) if isinstance(kernel, tuple) else kernel
        if (largest - 1) * dilation + 1 > min(x.sizes):
            kernel, dilation = min(3, min(x.sizes)), 1
        if self.rank == 3 and largest > 5:
            kernel = 3
        group = self.pick(1, 1, 1, 2, x.channels)
        if x.channels % group:
            group = 1
        pads = self.pick("same", "same", "same", "valid", "SAME_UPPER", "SAME_LOWER", "uneven")
        if dilation > 1 and pads.startswith("SAME"):
            pads = "same"  # onnxruntime runs no dilated convolution with auto_pad
        if pads == "uneven":
            pads = [self.random.randrange(2) for _ in range(2 * self.rank)]
            if dilation == 1 and largest > 3:
                pads = [self.random.randrange(3) for _ in range(2 * self.rank)]
        channels = group * max(1, self.pick(4, 6, 8) // group)
        return self.active(self.conv(x, channels, kernel, stride, pads, group, dilation))

    def residual(self, x: Map) -> Map:
        stride = self.pick(1, 1, 2)
        kernel = self.pick(3, 3, 3, 5)
        channels = x.channels if stride == 1 else self.pick(6, 8)
        y = self.active(self.conv(x, channels, kernel, stride))
        y = self.conv(y, channels, self.pick(kernel, 3))
        if stride > 1 or self.chance(0.2):
            x = self.conv(x, channels, 1, stride)
        return self.active(Map(self.op("Add", x.name, y.name), channels, x.sizes), norm=False)

    def bottleneck(self, x: Map) -> Map:
        stride = self.pick(1, 1, 2)
        y = self.active(self.conv(x, 4, 1))
        y = self.active(self.conv(y, 4, 3, stride, group=self.pick(1, 2, 4)))
        y = self.conv(y, 8, 1)
        if stride == 2 and self.chance(0.4):
            ceil_mode = self.opset >= 10 and x.sizes[0] % 2 == 1
            if ceil_mode or all(size % 2 == 0 for size in x.sizes):
                x = self.pool(x, "AveragePool", 2, 2, 0, ceil_mode)
                stride = 1
        if stride > 1 or x.channels != 8 or x.sizes != y.sizes:
            short = self.conv(x, 8, 1, stride)
            if short.sizes != y.sizes:
                return self.active(y)
            x = short
        return Map(self.op("Add", y.name, x.name), 8, y.sizes)

    def inception(self, x: Map) -> Map:
        branches: list[Callable[[], Map]] = [
            lambda: self.active(self.conv(x, 2, 1)),
            lambda: self.active(self.conv(self.conv(x, 2, 1), 3, 3)),
            lambda: self.active(self.conv(self.conv(x, 2, 1), 2, 5)),
            lambda: self.conv(self.conv(self.conv(x, 2, 1), 2, 3), 2, 3),
            lambda: self.conv(self.pool(x, "MaxPool", 3, 1, 1, False), 2, 1),
            lambda: self.conv(self.pool(x, "AveragePool", 3, 1, 1, False), 2, 1),
        ]
        if self.rank == 2:
            branches.append(lambda: self.conv(self.conv(x, 2, (1, 7)), 2, (7, 1)))
        chosen = self.random.sample(branches, self.random.randint(2, len(branches)))
        return self.concat(*(branch() for branch in chosen))

    def reduction(self, x: Map) -> Map:
        """Strided branches side by side, as between Inception's stages."""
        if min(x.sizes) < 5:
            return self.plain(x)
        pads = self.pick("valid", "valid", "same")
        one = self.conv(x, 4, 3, 2, pads)
        two = self.conv(self.conv(self.conv(x, 3, 1), 3, 3), 4, 3, 2, pads)
        three = self.pool(x, "MaxPool", 3, 2, 1 if pads == "same" else 0, False)
        return self.concat(*self.random.sample([one, two, three], 3))

    def pooling(self, x: Map) -> Map:
        kernel, stride, pads = self.pick(
            (2, 2, 0), (3, 2, 1), (3, 2, 0), (3, 3, 0), (2, 1, 0), (3, 1, 1)
        )
        if min(x.sizes) < kernel + 1:
            return x
        return self.pool(
            x, self.pick("MaxPool", "AveragePool"), kernel, stride, pads, self.chance(0.4)
        )

    def separable(self, x: Map) -> Map:
        kernel = self.pick(3, 3, 5, 7)
        if kernel > min(x.sizes):
            kernel = 3
        x = self.active(self.conv(x, x.channels, kernel, self.pick(1, 2), group=x.channels))
        return self.active(self.conv(x, self.pick(4, 6, 8), 1))

    def squeeze_excite(self, x: Map) -> Map:
        axes = list(range(2, 2 + self.rank))
        pooled = (
            self.op("GlobalAveragePool", x.name) if self.chance(0.5) else self.mean(x.name, axes, 1)
        )
        y = self.conv(Map(pooled, x.channels, (1,) * self.rank), 2, 1)
        y = self.same(self.conv(self.same(y, "Relu"), x.channels, 1), "Sigmoid")
        return self.same(x, "Mul", y.name)

    def shuffle(self, x: Map) -> Map:
        if x.channels % 2:
            return self.separable(x)
        first = self.pick(0, -1)
        split = [first, 2, x.channels // 2, *x.sizes]
        back = [first, x.channels, *x.sizes]
        if first == 0 and self.chance(0.5):
            split[-1] = -1
        y = self.op("Reshape", x.name, self.ints(split))
        y = self.op("Transpose", y, perm=[0, 2, 1, *range(3, 3 + self.rank)])
        y = self.op("Reshape", y, self.ints(back))
        return self.active(self.conv(Map(y, x.channels, x.sizes), x.channels, 3, group=x.channels))

    def halves(self, x: Map) -> Map:
        """Half of the channels go through a branch."""
        if x.channels % 2 or self.opset >= 18 or self.opset == 7:
            return self.residual(x)
        half = x.channels // 2
        node = f"split_{len(self.graph.nodes)}"
        inputs, attributes = [x.name], {"axis": 1}
        if self.opset < 13:
            attributes["split"] = [half, half]
        else:
            inputs.append(self.ints([half, half]))
        names = [f"{node}_a", f"{node}_b"]
        self.graph.nodes.append(helper.make_node("Split", inputs, names, name=node, **attributes))
        left, right = (Map(name, half, x.sizes) for name in names)
        right = self.active(self.conv(right, half, 1))
        return self.concat(left, self.active(self.conv(right, half, 3, group=half)))

    def hourglass(self, x: Map) -> Map:
        """Down, a convolution, up again, and a skip."""
        even = all(size % 2 == 0 for size in x.sizes)
        if min(x.sizes) < 4 or not (even or self.opset >= 11):
            return self.residual(x)
        down = self.pick("pool", "conv")
        y = self.pool(x, "MaxPool", 2, 2, 0, False) if down == "pool" else self.conv(x, 6, 3, 2)
        if self.chance(0.7):
            y = self.active(self.conv(y, self.pick(4, 6), 3))
        doubled = tuple(2 * size for size in y.sizes)
        if self.chance(0.5) and doubled == x.sizes and self.rank < 3:
            y = self.up_convolution(y)
        else:
            y = self.resize(y, x.sizes)
        if y.channels == x.channels and self.chance(0.5):
            return Map(self.op("Add", x.name, y.name), x.channels, x.sizes)
        return self.active(self.conv(self.concat(x, y), 6, self.pick(1, 3)))

    def up_convolution(self, x: Map) -> Map:
        """A transposed convolution that doubles the map."""
        kernel, pads, extra = self.pick((2, 0, 0), (4, 1, 0), (3, 1, 1), (6, 2, 0))
        group = self.pick(1, 1, 2)
        group = group if x.channels % group == 0 else 1
        channels = 4
        name = f"up_{len(self.graph.nodes)}"
        shape = (x.channels, channels // group, *(kernel,) * self.rank)
        inputs = [self.graph.normal(f"{name}.weight", *shape)]
        if self.chance(0.5):
            inputs.append(self.graph.normal(f"{name}.bias", channels))
        attributes: dict[str, object] = {"strides": [2] * self.rank}
        if pads:
            attributes["pads"] = [pads] * 2 * self.rank
        if extra:
            attributes["output_padding"] = [extra] * self.rank
        if group > 1:
            attributes["group"] = group
        if self.chance(0.7):
            attributes["kernel_shape"] = [kernel] * self.rank
        sizes = tuple(2 * size for size in x.sizes)
        return Map(self.op("ConvTranspose", x.name, *inputs, **attributes), channels, sizes)

    def valid_with_skip(self, x: Map) -> Map:
        """Unpadded convolutions beside a cropped skip, as in the first U-Net."""
        if min(x.sizes) < 7:
            return self.plain(x)
        y = self.active(self.conv(x, 4, 3, pads="valid"))
        y = self.conv(y, x.channels, 3, pads="valid")
        skip = self.crop(x, [2] * self.rank, [2] * self.rank)
        if self.chance(0.5):
            return self.concat(skip, y)
        return Map(self.op("Add", skip.name, y.name), x.channels, y.sizes)

    def cropped(self, x: Map) -> Map:
        if min(x.sizes) < 6:
            return self.plain(x)
        sides = [self.random.randrange(3) for _ in range(2 * self.rank)]
        x = self.crop(x, sides[: self.rank], sides[self.rank :])
        return self.active(self.conv(x, 6, 3))

    def padded(self, x: Map) -> Map:
        """A Pad node before an unpadded convolution."""
        kernel = self.pick(3, 5, 7) if min(x.sizes) > 8 else 3
        side = kernel // 2
        begins = [side] * self.rank
        ends = [side + self.pick(0, 0, 1)] * self.rank
        if max(ends) >= min(x.sizes):
            return self.plain(x)
        return self.active(
            self.conv(self.pad(x, begins, ends), 6, kernel, self.pick(1, 2), "valid")
        )

    def blocks(self, x: Map) -> Map:
        if self.rank != 2 or any(size % 2 for size in x.sizes):
            return self.plain(x)
        sizes = tuple(size // 2 for size in x.sizes)
        y = self.op("SpaceToDepth", x.name, blocksize=2)
        return self.active(self.conv(Map(y, 4 * x.channels, sizes), 6, self.pick(1, 3)))

    def instance_norm(self, x: Map) -> Map:
        name = f"instance_{len(self.graph.nodes)}"
        scale = self.graph.normal(f"{name}.scale", x.channels)
        bias = self.graph.normal(f"{name}.bias", x.channels)
        return self.same(x, "InstanceNormalization", scale, bias)

    # --- heads ------------------------------------------------------------------------------------

    def averaged(self, x: Map) -> str:
        axes = list(range(2, 2 + self.rank))
        form = self.pick("global", "mean", "mean_kept", "window", "max")
        if form == "mean":
            flat = self.mean(x.name, axes, 0)
        else:
            if form == "mean_kept":
                pooled = self.mean(x.name, axes, 1)
            elif form == "window":
                pooled = self.op("AveragePool", x.name, kernel_shape=list(x.sizes))
            else:
                kind = "GlobalMaxPool" if form == "max" else "GlobalAveragePool"
                pooled = self.op(kind, x.name)
            flat = self.op("Flatten", pooled)
        return self.dense(flat, x.channels)

    def dense(self, x: str, rows: int, map_: tuple[str, tuple[int, ...]] | None = None) -> str:
        """A fully-connected layer in one of its forms; `map_` tells what its rows stand on."""
        columns = self.pick(5, 10)
        form = self.pick("gemm", "transposed", "matmul")
        if form == "matmul":
            result = self.graph.linear(x, rows, columns)
            weight = self.graph.weights[-2].name
        elif form == "transposed":
            result = self.graph.gemm(x, rows, columns)
            weight = self.graph.weights[-2].name
        else:
            weight = self.graph.normal(f"fc_{len(self.graph.nodes)}.weight", rows, columns)
            bias = self.graph.normal(f"fc_{len(self.graph.nodes)}.bias", columns)
            result = self.op("Gemm", x, weight, bias)
        self.output_shape = ["batch", columns]
        if map_ is not None:
            self.result.interfaces[weight] = (*map_, 1 if form == "transposed" else 0)
        return result

    def flattened(self, x: Map) -> str:
        """A fully-connected layer on the map."""
        while prod(x.sizes) > 400:
            x = self.pool(x, "MaxPool", 2, 2, 0, False)
        rows = x.channels * prod(x.sizes)
        order = tuple(range(1 + self.rank))
        source = x.name
        if self.chance(0.2):
            order = (*range(1, 1 + self.rank), 0)
            source = self.op("Transpose", source, perm=[0, *(i + 1 for i in order)])
        form = self.pick("flatten", "zero", "rows", "computed")
        if form == "flatten":
            flat = self.op("Flatten", source)
        elif form == "zero":
            flat = self.op("Reshape", source, self.ints([0, self.pick(-1, rows)]))
        elif form == "rows":
            flat = self.op("Reshape", source, self.ints([-1, rows]))
        else:
            first = self._gather(self.op("Shape", x.name), 0)
            shape = self.op("Concat", first, self.ints([self.pick(-1, rows)]), axis=0)
            flat = self.op("Reshape", source, shape)
        if self.chance(0.5):
            flat = self.op("Dropout", flat)
        return self.dense(flat, rows, (x.name, order))

    def classifier(self, x: Map) -> str:
        """A convolution as large as the map."""
        while max(x.sizes) > 12:
            x = self.pool(x, "MaxPool", 2, 2, 0, False)
        y = self.same(self.conv(x, 8, x.sizes, pads="valid"), "Relu")
        self.output_shape = ["batch", 5]
        return self.op("Flatten", self.conv(y, 5, 1).name)

    def maps(self, x: Map) -> str:
        """The output is a map."""
        x = self.conv(x, 3, self.pick(1, 3))
        self.output_shape = ["batch", 3, *x.sizes]
        return x.name

    # --- the whole --------------------------------------------------------------------------------

    def build(self) -> RandomNetwork:
        low, high = BY_RANK[self.rank]
        sizes = [self.random.randint(low, high)] * self.rank
        if self.chance(0.3):
            sizes = [self.random.randint(low, high) for _ in sizes]
        if self.chance(0.5):
            sizes = [max(8, size // 8 * 8) for size in sizes]
        channels = self.pick(1, 3)
        last = self.chance(0.1)
        source = "image"
        if last:
            source = self.op("Transpose", source, perm=[0, self.rank + 1, *range(1, self.rank + 1)])
        x = self.stem(Map(source, channels, tuple(sizes)))
        parts = {
            self.plain: 6,
            self.residual: 4,
            self.bottleneck: 2,
            self.inception: 2,
            self.reduction: 2,
            self.pooling: 4,
            self.separable: 2,
            self.squeeze_excite: 2,
            self.shuffle: 1,
            self.halves: 1,
            self.hourglass: 3,
            self.valid_with_skip: 2,
            self.cropped: 1,
            self.padded: 2,
            self.blocks: 1,
            self.instance_norm: 1,
        }
        for part in self.random.choices(
            list(parts), list(parts.values()), k=self.random.randint(1, 5)
        ):
            if min(x.sizes) < 3:
                break
            self.result.parts.append(f"{part.__name__} {x.sizes}")
            x = part(x)
        heads: list[Callable[[Map], str]] = [
            self.averaged,
            self.flattened,
            self.classifier,
            self.maps,
        ]
        head = self.random.choices(heads, (4, 4, 1, 1))[0]
        self.result.parts.append(f"{head.__name__} {x.sizes}")
        output = head(x)
        shape = ["batch", *sizes, channels] if last else ["batch", channels, *sizes]
        self.result.model = self.graph.model(shape, output, self.output_shape)
        return self.result
