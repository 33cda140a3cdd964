"""Find the convolutions that FFT could compute (`find_convolutions`) and let FFTConv compute them.

`rewrite_convolutions` turns nodes into FFTConv and back, `fuse_activations` lets them take the Relu
or Clip behind them along.
"""
