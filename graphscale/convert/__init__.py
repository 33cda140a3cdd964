"""ONNX models as trainable torch modules, and back.

`load` turns a model into a `torch.nn.Module`; `save` writes the module's weights back into the
model's graph; `lost_for_training` says what an export in evaluation mode has dropped.
"""

from graphscale.convert.exporter import save
from graphscale.convert.importer import load
from graphscale.convert.lost_for_training import lost_for_training

__all__ = ["load", "lost_for_training", "save"]
