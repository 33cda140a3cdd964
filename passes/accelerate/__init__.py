"""Find convolutions and rewrite them to FFTConv."""
