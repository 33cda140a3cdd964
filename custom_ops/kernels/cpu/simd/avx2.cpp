// The kernels for AVX2 and FMA, run only where the machine has them. instruction_sets.cmake has the
// compiler flags; without them, on other processors, this file is empty.
#if defined(__AVX2__)
#define GRAPHSCALE_INSTRUCTION_SET avx2
#define GRAPHSCALE_VECTOR_BYTES 32
#include "kernels/cpu/simd/kernel_table-inl.h"
#endif
