"""Makes an operator of the kernel library known to torch and to torch's ONNX exporter.

A name, a torch schema, a function that gives the outputs' shapes and an ONNX function body go in;
an `Operator` comes out, which is called like a function, is traced and compiled by torch, and
exported as one ONNX node.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence

import onnx
import onnxscript
import torch
from torch.autograd import forward_ad

from graphscale.core.operator_definition import DOMAIN, VERSION, Definition
from graphscale.layers import library

_FLOATS = ["tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)"]
_ATTRIBUTE_KINDS = {
    "int": onnx.defs.OpSchema.AttrType.INT,
    "float": onnx.defs.OpSchema.AttrType.FLOAT,
    "str": onnx.defs.OpSchema.AttrType.STRING,
    "List[int]": onnx.defs.OpSchema.AttrType.INTS,
}

# Every operator, by its ONNX name.
OPERATORS: dict[str, Operator] = {}


class Operator:
    """A torch operator ``graphscale::snake_case`` over the library's operator of the same name.

    Args:
        name: The operator's name in ONNX, in CamelCase.
        signature: A torch schema such as "(Tensor x, Tensor? bias, int stride=1) -> Tensor". Its
            tensors are the inputs of the ONNX node, its other arguments the attributes.
        shapes: Takes the arguments and returns the outputs, empty: for calls, fake tensors and
            traces.
        body: The operator's definition by ONNX's own operators, in ONNX's text form, which a
            runtime without the library runs; or a function that returns it for an opset version.

    Example:
        >>> lookup_table(weight, indices, padding_idx=0)
    """

    def __init__(
        self, name: str, signature: str, shapes: Callable, body: str | Callable[[int], str]
    ) -> None:
        self.name = name
        self._shapes = shapes
        qualified = f"{DOMAIN}::{_snake_case(name)}"
        torch.library.define(qualified, signature)
        torch.library.impl(qualified, ("cpu", "cuda"), self._run)
        torch.library.register_fake(qualified, shapes)
        self.qualified_name = qualified
        self.torch_op = getattr(torch.ops.graphscale, _snake_case(name)).default
        schema = self.torch_op._schema
        self.inputs = [a for a in schema.arguments if "Tensor" in str(a.type)]
        self.attributes = [a for a in schema.arguments if "Tensor" not in str(a.type)]
        self.outputs = schema.returns
        assert [*self.inputs, *self.attributes] == schema.arguments, "tensors come first"
        self._attribute_names = tuple(a.name for a in self.attributes)
        defaults = {a.name: a.default_value for a in self.attributes if a.has_default_value()}
        self.definition = Definition(
            name, body, {key: value for key, value in defaults.items() if value != []}
        )
        self.defaults = tuple(a.default_value for a in schema.arguments)
        OPERATORS[name] = self

    @functools.cached_property
    def trainable_inputs(self) -> tuple[int, ...]:
        """Positions of the inputs that training changes, from the operator's C++ description."""
        return library.trainable_inputs(self.name)

    def __call__(self, *args, **kwargs):
        """Call the torch operator."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
            return self.torch_op(*args, **kwargs)
        # Without gradients, skip torch's autograd kernel, which is 3 us of Python per call.
        with torch._C._AutoDispatchBelowAutograd():
            return self.torch_op(*args, **kwargs)

    def _run(self, *args):
        """Run the kernel; torch leaves out last arguments that equal their defaults."""
        args += self.defaults[len(args) :]
        inputs = args[: len(self.inputs)]
        attributes = library.attribute_array(self._attribute_names, args[len(inputs) :])
        try:
            outputs = self._shapes(*args)
        except Exception:
            # The kernel's own check raises the better error: it names the shapes that do not fit.
            library.run(self.name, inputs, [], attributes)
            raise
        results = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        library.run(self.name, inputs, results, attributes)
        return outputs

    def write(self, results: Sequence[torch.Tensor], *args) -> None:
        """Run the kernel with results in given memory: contiguous tensors of the right shapes.

        For code that neither autograd nor torch.compile sees.
        """
        inputs, rest = args[: len(self.inputs)], args[len(self.inputs) :]
        attributes = library.attribute_array(self._attribute_names, rest)
        library.run(self.name, inputs, results, attributes)

    def export_rule(self) -> Callable:
        """The entry for torch.onnx.export's ``custom_translation_table``: makes a single node."""
        node = onnxscript.values.Op(
            onnxscript.values.Opset(DOMAIN, VERSION), self.name, self.onnx_schema()
        )

        arguments = self.torch_op._schema.arguments
        names = [a.name for a in arguments]
        defaults = dict(zip(names, self.defaults))

        def rule(*args, **kwargs):
            bound = {**defaults, **dict(zip(names, args)), **kwargs}
            inputs = [bound[a.name] for a in self.inputs]
            while inputs and inputs[-1] is None:
                inputs.pop()
            # ONNX leaves an attribute out where torch has an empty list.
            attributes = {a.name: bound[a.name] for a in self.attributes if bound[a.name] != []}
            return node(*inputs, **attributes)

        rule.__name__ = self.name
        rule.__signature__ = inspect.Signature(
            inspect.Parameter(
                a.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=a.default_value if a.has_default_value() else inspect.Parameter.empty,
            )
            for a in arguments
        )
        return rule

    def onnx_schema(self) -> onnx.defs.OpSchema:
        """The node's ONNX schema. Each tensor has a type of its own, since a torch schema does not
        say which tensors share one.
        """
        schema = onnx.defs.OpSchema
        option = schema.FormalParameterOption
        types = iter(range(len(self.inputs) + len(self.outputs)))

        def parameter(name: str, optional: bool) -> onnx.defs.OpSchema.FormalParameter:
            return schema.FormalParameter(
                name,
                f"T{next(types)}",
                param_option=option.Optional if optional else option.Single,
            )

        inputs = [parameter(a.name, "Optional" in str(a.type)) for a in self.inputs]
        outputs = [parameter(a.name or f"output_{i}", False) for i, a in enumerate(self.outputs)]
        every = [*_FLOATS, "tensor(int64)", "tensor(uint32)"]
        return schema(
            self.name,
            DOMAIN,
            VERSION,
            inputs=inputs,
            outputs=outputs,
            type_constraints=[(p.type_str, every, "") for p in [*inputs, *outputs]],
            attributes=[
                schema.Attribute(a.name, _ATTRIBUTE_KINDS[str(a.type)], required=False)
                for a in self.attributes
            ],
        )


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def is_transformed() -> bool:
    """Whether a transform of torch.func or forward-mode differentiation is running."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
