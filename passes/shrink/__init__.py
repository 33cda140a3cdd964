"""Derive the pre-train network: kernels, input size, geometry, weights, the rewritten graph."""
