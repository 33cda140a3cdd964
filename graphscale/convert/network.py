"""The torch module that `load` returns: weights under their ONNX names, and a program.

In: weights by name, and a torch.fx graph that the importer recorded. Out: a `Network`, which can be
called, trained, copied, pickled and compiled like any other module.
"""

from __future__ import annotations

import copy
import keyword
import linecache
import operator
import unicodedata
from collections.abc import Callable

import onnx
import onnx_ir as ir
import torch
from torch import fx, nn

from graphscale.core.model_files import load_model, to_proto

_PROGRAM = ("graph", "code", "_program")  # what `Network.set_program` sets


class Source:
    """The model that a network was read from, and how. Copies of the network share it.

    Args:
        model: The model; `save` writes the network's weights into a copy of it.
        name: How error messages name the model.
        options: Keyword arguments that the model was imported with.
        read: `read(model, **options)` imports the model again, as `load` does. A pickled network
            holds no program, whose steps cannot be pickled, and makes it anew by this function.
    """

    def __init__(
        self, model: ir.Model, name: str, options: dict, read: Callable[..., Network]
    ) -> None:
        self.model = model
        self.name = name
        self.options = options
        self.read = read

    def __deepcopy__(self, memo: dict) -> Source:
        return self

    def __getstate__(self) -> dict:
        return {**vars(self), "model": to_proto(self.model).SerializeToString()}

    def __setstate__(self, state: dict) -> None:
        model = load_model(onnx.ModelProto.FromString(state["model"]))
        vars(self).update(state, model=model)


class Namespace(nn.Module):
    """Holds the weights whose names share a prefix."""

    def __setattr__(self, name: str, value: object) -> None:
        """As any module, beside a weight that is named 'training', too."""
        if name == "training":
            vars(self)[name] = value
        else:
            super().__setattr__(name, value)


class OddName(nn.Module):
    """Reads a weight whose name is no valid attribute path, such as 'a' beside 'a.b'."""

    def __init__(self, store: dict[str, torch.Tensor], key: str) -> None:
        super().__init__()
        self.store = store
        self.key = key

    def forward(self) -> torch.Tensor:
        """The weight."""
        return self.store[self.key]


class Network(Namespace):
    """An ONNX graph as a torch module.

    `named_parameters()` are the weights and `named_buffers()` the running statistics, under the
    names of the ONNX graph. `graph` is the program (torch.fx); `code` is its Python text, for
    reading. A call takes the graph's inputs in their order and returns its output, or a tuple of
    several outputs.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.graph: fx.Graph | None = None
        self.code = ""
        self._program: Callable | None = None
        self._flat_names: set[str] = set()

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The graph's outputs."""
        return self._program(self, *inputs)

    def add_weight(self, name: str, weight: torch.Tensor) -> None:
        """Hold a weight (nn.Parameter) or a running statistic (plain tensor) as `name`."""
        owner, key = self._owner(name, create=True)
        if isinstance(weight, nn.Parameter):
            owner._parameters[key] = weight
        else:
            owner._buffers[key] = weight

    def weight(self, name: str) -> torch.Tensor:
        """The weight or running statistic `name`.

        Raises:
            KeyError: no such weight.
        """
        owner, key = self._owner(name)
        store = owner._parameters if key in owner._parameters else owner._buffers
        return store[key]

    def is_attribute(self, name: str) -> bool:
        """Whether the program can read the weight as the attribute `self.<name>`."""
        if set(name) & set('"\\') or any(map(keyword.iskeyword, name.split("."))):
            return False
        # Text with a line break is no literal, and Python reads 'ｘ' in a program as 'x'.
        if not name.isprintable() or unicodedata.normalize("NFKC", name) != name:
            return False
        try:
            return operator.attrgetter(name)(self) is self.weight(name)
        except AttributeError:
            return False

    def odd_name(self, name: str) -> OddName:
        """A module that reads the weight `name` for the program; see `is_attribute`."""
        owner, key = self._owner(name)
        return OddName(owner._parameters if key in owner._parameters else owner._buffers, key)

    def set_program(self, graph: fx.Graph) -> None:
        """Take `graph`, whose attributes this module holds, as the module's forward."""
        graph._codegen = fx.graph.CodeGen()
        python = graph.python_code("self")
        file = f"<graphscale {self.source.name} {id(self):#x}>"
        linecache.cache[file] = (len(python.src), None, python.src.splitlines(True), file)
        scope = dict(python.globals)
        exec(compile(python.src, file, "exec"), scope)
        # Not by setattr, which would overwrite weights that happen to have these names.
        vars(self).update(graph=graph, code=python.src, _program=scope["forward"])

    def __deepcopy__(self, memo: dict) -> Network:
        result = memo[id(self)] = type(self).__new__(type(self))
        vars(result).update(copy.deepcopy(vars(self), memo))
        return result

    def __getstate__(self) -> dict:
        """Without the program, whose steps cannot be pickled: it is imported again."""
        return {k: v for k, v in vars(self).items() if k not in _PROGRAM}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        imported = self.source.read(self.source.model, **self.source.options)
        vars(self).update({key: vars(imported)[key] for key in _PROGRAM})

    def _owner(self, name: str, create: bool = False) -> tuple[nn.Module, str]:
        """The module that holds weight `name`, and the weight's key in it."""
        # 'a.b' is weight b of the module a. A name that begins with a dot has no such first part:
        # the root module holds it under the whole name.
        if name.startswith(".") or not name:
            if create:
                self._flat_names.add(name)
            return self, name
        *path, key = name.split(".")
        owner: nn.Module = self
        for part in path:
            if create and part not in owner._modules:
                owner._modules[part] = Namespace()
            owner = owner._modules[part]
        return owner, key

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        unexpected = args[3]
        unexpected[:] = [key for key in unexpected if key[len(prefix) :] not in self._flat_names]
