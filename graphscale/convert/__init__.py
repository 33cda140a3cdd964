"""ONNX graphs as trainable torch modules, and back."""

from graphscale.convert.exporter import save
from graphscale.convert.importer import load
from graphscale.convert.training_losses import training_losses

__all__ = ["load", "save", "training_losses"]
