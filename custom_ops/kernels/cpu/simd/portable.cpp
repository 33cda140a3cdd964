// The kernels for every machine: 128-bit vectors, which the compiler turns into SSE2 or NEON.
#define GRAPHSCALE_INSTRUCTION_SET portable
#define GRAPHSCALE_VECTOR_BYTES 16
#include "kernels/cpu/simd/kernel_table-inl.h"
