// The kernels for AVX-512 (F, DQ, BW, VL) and FMA, run only where the machine has them.
// instruction_sets.cmake has the compiler flags; without them, on other processors, this file is
// empty.
#if defined(__AVX512F__)
#define GRAPHSCALE_INSTRUCTION_SET avx512
#define GRAPHSCALE_VECTOR_BYTES 64
#include "kernels/cpu/simd/kernel_table-inl.h"
#endif
