// Compiled with AVX2 and FMA, and run only where the machine has them.
#include "kernels/cpu/fft_conv/engine_definition.h"

#if defined(__AVX2__)
template const graphscale::fft_conv::Engine& graphscale::fft_conv::engine<8>();
#endif
