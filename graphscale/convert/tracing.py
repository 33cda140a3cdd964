"""Recording of a torch program, whose shapes are computed at several batch sizes on the way.

In: inputs with their shapes at each batch size, and calls of translations. Out: a torch.fx graph.

An operator's translation is called once with `ProgramValue` arguments. Each torch call that it
makes becomes a step of the torch.fx graph, and runs at the same time on fake tensors (shapes
without data), once per batch size. So `x.shape` holds plain ints for sizes that do not depend on
the batch, and a step of the program (`x.size(0)`) for those that do.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.proxy import Scope, TracerBase

_CONSTANT = "_constant_"  # prefix of the names of the program's constants


class ProgramValue(fx.Proxy):
    """A tensor or number that the program computes when it runs; tensors know their shape."""

    @property
    def samples(self) -> list:
        """The value at each batch size: fake tensors or numbers."""
        return self.tracer.samples[self.node]

    @property
    def shape(self) -> tuple:
        """Sizes: an int, or a step of the program where the size depends on the batch."""
        shapes = [sample.shape for sample in self.samples]
        return tuple(
            sizes[0] if len(set(sizes)) == 1 else self.size(axis)
            for axis, sizes in enumerate(zip(*shapes))
        )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.samples[0].ndim

    def dim(self) -> int:
        """Number of axes."""
        return self.ndim

    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.samples[0].is_floating_point()


class Tracer(TracerBase):
    """Records the program of a network.

    Args:
        root: The module whose forward the program will be; the tracer adds the constants and
            modules that the program needs.
        batches: The batch sizes at which shapes are computed; only one if the model fixes it.
    """

    def __init__(self, root: torch.nn.Module, batches: Sequence[int]) -> None:
        super().__init__()
        self.root = root
        self.batches = list(batches)
        self.graph = fx.Graph()
        self.scope = Scope("", None)
        self.module_stack = collections.OrderedDict()
        self.node_name_to_scope = {}
        self.samples: dict[fx.Node, list] = {}
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._constants: dict[int, tuple[torch.Tensor, fx.Node]] = {}
        self._count: collections.Counter[str] = collections.Counter()
        self._inputs: list[ProgramValue] = []
        self._batch: ProgramValue | None = None
        self._device: ProgramValue | None = None

    def input(self, name: str, shapes: Sequence[Sequence[int]], dtype: torch.dtype) -> ProgramValue:
        """A new argument of the program.

        Args:
            name: Of the input; characters that Python does not allow become underscores.
            shapes: Its shape at each batch size.
            dtype: Its element type.
        """
        node = self.graph.placeholder("".join(c if c.isalnum() else "_" for c in name) or "x")
        with self._mode:
            self.samples[node] = [torch.empty(tuple(shape), dtype=dtype) for shape in shapes]
        self._inputs.append(ProgramValue(node, self))
        return self._inputs[-1]

    def attribute(self, path: str, tensor: torch.Tensor) -> ProgramValue:
        """A tensor that the root module holds as attribute `path`."""
        node = self.graph.create_node("get_attr", path)
        self.samples[node] = [self._mode.from_tensor(tensor.detach())] * len(self.batches)
        return ProgramValue(node, self)

    def module(self, module: torch.nn.Module, name: str) -> Callable:
        """Add `module` to the root; calls of the returned function are steps of the program.

        The result of `module` must have the shape and type of its first argument, if it has one.
        """
        path = f"{name}_{self._count[name]}"
        self._count[name] += 1
        while hasattr(self.root, path):
            path += "_"
        self.root.add_module(path, module.eval())
        return lambda *args: self.create_proxy("call_module", path, args, {})

    def create(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        """A new tensor `function(*args)`: a step of the program if an argument is symbolic."""
        symbolic: list[bool] = []
        fx.node.map_aggregate(args, lambda a: symbolic.append(is_program_value(a)))
        if not any(symbolic):
            return function(*args, **kwargs)
        kwargs = {**kwargs, "device": self.device}
        return self.create_proxy("call_function", function, args, kwargs)

    @property
    def batch(self) -> ProgramValue:
        """The batch size, as a step of the program."""
        if self._batch is None:
            self._batch = next(
                x.size(0) for x in self._inputs if len({s.shape[:1] for s in x.samples}) > 1
            )
        return self._batch

    @property
    def device(self) -> Any:
        """The device of the first input, as a step of the program."""
        if self._device is None:
            self._device = self._inputs[0].device if self._inputs else torch.device("cpu")
        return self._device

    def proxy(self, node: fx.Node) -> ProgramValue:
        """The value that `node` computes."""
        return ProgramValue(node, self)

    def create_proxy(self, kind, target, args, kwargs, *rest, **options) -> ProgramValue:
        """Record a step, and run it on the samples to learn the result's shapes."""
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        node = proxy.node
        self.samples[node] = [
            self._sample(node, *fx.node.map_arg((node.args, node.kwargs), self._chooser(index)))
            for index in range(len(self.batches))
        ]
        return proxy

    def create_arg(self, a: Any) -> Any:
        """Make constant tensors buffers of the root, which move with it to another device."""
        if isinstance(a, torch.Tensor):
            if id(a) not in self._constants:
                path = f"{_CONSTANT}{len(self._constants)}"
                self.root.register_buffer(path, a, persistent=False)
                self._constants[id(a)] = a, self.attribute(path, a).node
            return self._constants[id(a)][1]
        if isinstance(a, torch.Size):
            a = tuple(a)
        if isinstance(a, torch.dtype | torch.device | torch.memory_format):
            return a
        return super().create_arg(a)

    def _chooser(self, index: int) -> Callable[[fx.Node], Any]:
        return lambda node: self.samples[node][index]

    def _sample(self, node: fx.Node, args: tuple, kwargs: dict) -> Any:
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        if node.op == "call_module":
            return args[0] if args else getattr(self.root, node.target)()
        return node.target(*args, **kwargs)

    def finish(self, results: Any) -> fx.Graph:
        """The graph that returns `results`, without unused steps and constants."""
        self.graph.output(self.create_arg(results))
        for node in reversed(list(self.graph.nodes)):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
                if node.op == "call_module" or str(node.target).startswith(_CONSTANT):
                    delattr(self.root, node.target)
        return self.graph


def is_program_value(value: Any) -> bool:
    """Whether `value` is known only when the program runs."""
    return isinstance(value, fx.Proxy)
