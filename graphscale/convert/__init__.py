"""ONNX graphs as trainable torch modules, and back."""

from graphscale.convert.exporter import save
from graphscale.convert.importer import load

__all__ = ["load", "save"]
