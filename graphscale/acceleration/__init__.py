"""Find the fastest implementation of every convolution of an ONNX model on this machine."""
