"""fbcunn's layers as torch modules, with CPU and CUDA kernels, derivatives and ONNX export.

Each file holds one layer, or a few that share an operator, in this order: the library's operator
with its ONNX function body, its derivatives, the module. `accelerate` lets torch's own convolutions
choose FFTConv's algorithms by measurement.
"""

from graphscale.layers.auto_conv import AutoConv1d, AutoConv2d, accelerate
from graphscale.layers.cross_map_normalization import CrossMapNormalization
from graphscale.layers.feature_pooling import FeatureLPPooling, Maxout
from graphscale.layers.fft_conv import FFTConv1d, FFTConv2d
from graphscale.layers.hierarchical_softmax import HierarchicalSoftmax, TopClasses
from graphscale.layers.k_max_pool import GroupKMaxPool, TemporalKMaxPool
from graphscale.layers.locally_connected import LocallyConnected
from graphscale.layers.lookup_table import LookupTable, WeightedLookupTable
from graphscale.layers.matrix_conv import matrix_convolutions
from graphscale.layers.one_bit import OneBitDequantize, OneBitQuantize
from graphscale.layers.sparse_nll import SparseNLLCriterion
from graphscale.layers.temporal_conv import TemporalConv

__all__ = [
    "AutoConv1d",
    "AutoConv2d",
    "CrossMapNormalization",
    "FFTConv1d",
    "FFTConv2d",
    "FeatureLPPooling",
    "GroupKMaxPool",
    "HierarchicalSoftmax",
    "LocallyConnected",
    "LookupTable",
    "Maxout",
    "OneBitDequantize",
    "OneBitQuantize",
    "SparseNLLCriterion",
    "TemporalConv",
    "TemporalKMaxPool",
    "TopClasses",
    "WeightedLookupTable",
    "accelerate",
    "matrix_convolutions",
]
