"""Measures a model's convolutions on this machine and rewrites them where FFTConv is faster.

The public functions are in `accelerate_model`, which measures each convolution alone.
`choose_layers` then tries its choices in the whole model; `whole_model` runs whole models and
compares their outputs.
"""
