"""Shrink and grow torch modules, keeping their class and their state-dict keys.

`shrink.py` and `grow.py` are the entry points. The module is traced to an ONNX graph
(`trace_module`), the graph is planned and shrunk by `graphscale.rescaling`, and the layers of a
copy of the module get the graph's sizes (`edit_layers`).
"""
