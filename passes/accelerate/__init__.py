"""Find the convolutions that FFTConv could compute, and turn them into FFTConv.

`find_convolutions` lists them, `rewrite_convolutions` turns nodes into FFTConv and back, and
`fuse_activations` fuses the Relu or Clip behind a node into it.
"""
