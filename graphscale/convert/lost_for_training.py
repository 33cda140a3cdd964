"""What a file exported in evaluation mode has lost for training, as far as its graph shows it.

In: a model. Out: sentences for the user, each with the way to export the network for training.
"""

from __future__ import annotations

import onnx_ir as ir

from graphscale.core.model_files import ModelLike, load_model

ADVICE = (
    "export for training: torch.onnx.export(model.train(), ..., "
    "training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, dynamo=False)"
)
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_NORMALIZATIONS = ("Normalization", "LRN")


def lost_for_training(model: ModelLike) -> list[str]:
    """Signs that the exporter dropped what training needs: Dropout or BatchNormalization.

    These are hints: a network may have been designed without such layers.

    Args:
        model: Path of an ONNX model, or the model in memory.

    Returns:
        One sentence per sign; an empty list where there is none.

    Raises:
        GraphScaleError: the model cannot be read.
    """
    return _signs(load_model(model).graph)


def _signs(graph: ir.Graph) -> list[str]:
    nodes = list(graph.all_nodes())
    kinds = [node.op_type for node in nodes]
    convolutions = [node for node in nodes if node.op_type in _CONVOLUTIONS]
    biased = [node for node in convolutions if len(node.inputs) > 2 and node.inputs[2] is not None]
    found = []
    normalized = any(part in kind for kind in kinds for part in _NORMALIZATIONS)
    if len(convolutions) > 4 and len(biased) == len(convolutions) and not normalized:
        found.append(
            f"all {len(convolutions)} convolutions have a bias and nothing normalises: "
            f"BatchNormalization was probably folded into them and cannot be trained; {ADVICE}"
        )
    if kinds.count("Gemm") > 1 and "Dropout" not in kinds:
        found.append(
            f"{kinds.count('Gemm')} fully-connected layers and no Dropout: an export in evaluation "
            f"mode leaves it out; if the network has it, {ADVICE}"
        )
    return found
