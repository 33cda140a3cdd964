"""Networks for the tests: every family that graphscale promises, at any width.

`NETWORKS` names them, `build` makes a torch module with sane random weights, `export` an ONNX
model. What torch cannot write (auto_pad, NHWC, old opsets, shared weights) is in `HANDMADE`, which
is all that can be had where torch is not installed.
"""

from importlib.util import find_spec

from .handmade import HANDMADE

__all__ = ["HANDMADE", "NETWORKS", "Entry", "build", "export", "export_module"]

if find_spec("torch"):
    from .exporters import export, export_module
    from .networks import NETWORKS, Entry, build
