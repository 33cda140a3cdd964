"""Exports torch modules to ONNX, with graphscale's operators as nodes, functions or plain ONNX.

`export` writes a module to a file, `to_onnx` makes the model in memory, `add_function_bodies` adds
to a model what a runtime without graphscale's library needs.
"""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import save_model
from graphscale.core.operator_definition import DOMAIN, Definition, add_bodies
from graphscale.layers.operator import OPERATORS
from graphscale.layers.quiet_tracing import quiet_tracing

# Whether `to_onnx` runs; for the whole process, as torch's own flag is.
_with_our_rules = False


def knows_our_operators() -> bool:
    """Whether a module may use graphscale's operators now.

    It may not within torch.onnx.export, which has no rules for them; `to_onnx` gives it rules.
    """
    return _with_our_rules or not torch.onnx.is_in_onnx_export()


def export(
    module: torch.nn.Module,
    example_inputs: tuple,
    path: str | os.PathLike[str],
    *,
    function_bodies: bool = True,
    inline: bool = False,
    **kwargs,
) -> None:
    """Write ``module`` as an ONNX file that keeps graphscale's layers as single nodes.

    Nothing is written where the export fails.

    Args:
        module: In evaluation mode, for a model for inference.
        example_inputs, kwargs: Passed on to ``torch.onnx.export(dynamo=True)``.
        path: The file, in a folder that exists.
        function_bodies: Add the operators' function bodies. With them the model also runs in an
            onnxruntime without graphscale's library, but more slowly.
        inline: Replace the layers by their function bodies. The file then holds ONNX's own
            operators only, for runtimes and tools without functions.

    Raises:
        GraphScaleError: torch cannot export the module, or the folder does not exist.

    Example:
        >>> graphscale.export(network.eval(), (torch.randn(1, 3, 224, 224),), "network.onnx")
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise GraphScaleError(f"{path.parent} is not a folder; make it, or give another path")
    model = to_onnx(module, example_inputs, **kwargs)
    if function_bodies or inline:
        add_function_bodies(model)
    if inline:
        _inline_bodies(model)
    save_model(model, path)


def to_onnx(module: torch.nn.Module, example_inputs: tuple, **kwargs) -> ir.Model:
    """The ONNX model of ``module`` in memory, without function bodies.

    Takes the arguments of ``torch.onnx.export(dynamo=True)``. Raises GraphScaleError where torch
    cannot export the module.
    """
    import graphscale.layers  # noqa: F401  registers every operator

    table = {op.torch_op: op.export_rule() for op in OPERATORS.values()}
    table.update(kwargs.pop("custom_translation_table", {}))
    kwargs.setdefault("verbose", False)
    global _with_our_rules
    before, _with_our_rules = _with_our_rules, True
    try:
        with quiet_tracing():
            return torch.onnx.export(
                module, example_inputs, dynamo=True, custom_translation_table=table, **kwargs
            ).model
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise GraphScaleError(
            f"torch cannot export {type(module).__name__}: {reason}; change the module or export "
            "it with torch.onnx.export to see where"
        ) from error
    finally:
        _with_our_rules = before


def add_function_bodies(model: ir.Model) -> None:
    """Add the function bodies of all graphscale operators that ``model`` uses, in place.

    Raises:
        GraphScaleError: the model uses a graphscale operator that does not exist.
    """

    def definition_of(node: ir.Node) -> Definition:
        operator = OPERATORS.get(node.op_type)
        if operator is None:
            raise GraphScaleError(
                f"node '{node.name}' is {DOMAIN}.{node.op_type}, which this graphscale does not "
                "have; upgrade it"
            )
        return operator.definition

    add_bodies(model, definition_of)


def _inline_bodies(model: ir.Model) -> None:
    """Replace graphscale's nodes by their function bodies, in place."""

    def is_ours(function: ir.Function) -> bool:
        return function.domain == DOMAIN

    InlinePass(criteria=is_ours)(model)
    for identifier in [each for each, function in model.functions.items() if is_ours(function)]:
        del model.functions[identifier]
    model.opset_imports.pop(DOMAIN, None)
