"""From a node of a traced graph to the submodule that it was traced from.

torch.onnx writes the paths of the modules being called into each node's metadata.
"""

from __future__ import annotations

import ast

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"  # the key of the metadata


def module_path(node: ir.Node) -> str | None:
    """Path of the submodule in whose forward a node was traced; '' is the module itself.

    None for a node that was not traced from a module.
    """
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    return scopes[-2] if len(scopes) > 1 and scopes[0] == "" else None
