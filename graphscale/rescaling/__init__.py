"""Shrink and grow ONNX models: the passes in their order, input sizes and the check of fidelity."""
