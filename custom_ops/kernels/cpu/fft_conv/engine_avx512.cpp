// Compiled with AVX-512 (F, DQ, BW, VL) and FMA, and run only where the machine has them.
#include "kernels/cpu/fft_conv/engine_definition.h"

#if defined(__AVX512F__)
template const graphscale::fft_conv::Engine& graphscale::fft_conv::engine<16>();
#endif
