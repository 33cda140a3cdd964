// For every machine: vectors of four (SSE2, NEON), as the compiler makes them.
#include "kernels/cpu/fft_conv/engine_definition.h"

template const graphscale::fft_conv::Engine& graphscale::fft_conv::engine<4>();
