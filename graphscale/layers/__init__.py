"""fbcunn's layers as torch modules; each file holds one: operator, gradient, module."""

from graphscale.layers.temporal_conv import TemporalConv

__all__ = ["TemporalConv"]
