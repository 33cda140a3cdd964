"""Measures a model's convolutions on this machine and rewrites them where FFTConv is faster.

`accelerate_model` is the room's entrance: it measures each convolution alone, `choose_layers` tries
the choices in the whole model, `whole_model` runs that and compares its outputs.
"""
