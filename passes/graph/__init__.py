"""Read and edit one graph: weights and constants, shapes, the value of a node."""
