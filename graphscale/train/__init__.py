"""ONNX graphs as trainable torch modules, and back."""

from .exporter import save
from .importer import load

__all__ = ["load", "save"]
