"""torch to ONNX, with graphscale's operators as nodes and as function bodies."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir
import torch

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import save_model
from graphscale.layers.operator import DOMAIN, OPERATORS

_with_our_rules = False  # torch's own flag is of the whole process, too


def knows_our_operators() -> bool:
    """Whether a module may use our operators now: not in an ONNX export without our rules."""
    return _with_our_rules or not torch.onnx.is_in_onnx_export()


def export(
    module: torch.nn.Module,
    example_inputs: tuple,
    path: str | os.PathLike[str],
    *,
    function_bodies: bool = True,
    **kwargs,
) -> None:
    """Write ``module`` as an ONNX file that keeps graphscale's layers as single nodes.

    ``torch.onnx.export(dynamo=True)`` with our rules; ``kwargs`` go to it. With ``function_bodies``
    the model also runs in an onnxruntime without our library, more slowly. The file appears whole
    or not at all. Raises GraphScaleError when torch cannot export the module.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise GraphScaleError(f"{path.parent} is not a folder; make it, or give another path")
    model = to_onnx(module, example_inputs, **kwargs)
    if function_bodies:
        add_function_bodies(model)
    save_model(model, path)


def to_onnx(module: torch.nn.Module, example_inputs: tuple, **kwargs) -> ir.Model:
    """The ONNX model of ``module`` in memory, without function bodies; else as ``export``."""
    import graphscale.layers  # noqa: F401  every operator registers itself

    table = {op.torch_op: op.export_rule() for op in OPERATORS.values()}
    table.update(kwargs.pop("custom_translation_table", {}))
    kwargs.setdefault("verbose", False)
    global _with_our_rules
    before, _with_our_rules = _with_our_rules, True
    try:
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
    """Give a model the bodies of the graphscale operators that it (or such a body) uses."""
    opset = model.opset_imports[""]
    waiting = [node for node in model.graph.all_nodes() if node.domain == DOMAIN]
    while waiting:
        node = waiting.pop()
        if node.op_identifier() in model.functions:
            continue
        operator = OPERATORS.get(node.op_type)
        if operator is None:
            raise GraphScaleError(
                f"node '{node.name}' is {DOMAIN}.{node.op_type}, which this graphscale does not "
                "have; upgrade it"
            )
        function = ir.serde.deserialize_function(operator.function(opset))
        model.functions[function.identifier()] = function
        waiting.extend(inner for inner in function if inner.domain == DOMAIN)
