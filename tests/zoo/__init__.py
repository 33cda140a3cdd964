"""Networks for the tests: every family that graphscale promises, at any width.

`NETWORKS` names them, `build` makes a torch module with sane random weights, `export` an ONNX
model. What torch cannot write (auto_pad, NHWC, old opsets, shared weights) is in `HANDMADE`.
"""

from .exporters import export, export_module
from .handmade import HANDMADE
from .networks import NETWORKS, Entry, build

__all__ = ["HANDMADE", "NETWORKS", "Entry", "build", "export", "export_module"]
