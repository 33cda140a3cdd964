// All kernels that are compiled once per instruction set, as one table of function pointers per
// set, and the table that fits this machine.
//
// This is the only mechanism for vector instructions on the CPU:
//   *-inl.h                          code that is compiled once per instruction set, in namespace
//                                    GRAPHSCALE_INSTRUCTION_SET (avx512, avx2 or portable), on
//                                    vectors of GRAPHSCALE_VECTOR_BYTES (64, 32 or 16)
//   simd/{portable,avx2,avx512}.cpp  one translation unit per set; each includes
//                                    kernel_table-inl.h, which includes all other *-inl.h
//   simd/instruction_sets.cmake      the compiler flags of these files
//   simd/instruction_set.h           which set this machine has
// All other code takes its loops from this_machines_kernels(). The namespaces keep the copies of a
// function apart, so the linker never mixes them up.
#pragma once

#include "kernels/cpu/fft_conv/engine.h"
#include "kernels/cpu/matmul_block.h"
#include "kernels/cpu/vector_loops.h"

namespace graphscale {

struct KernelTable {
  MatmulBlock<float> matmul_float;
  MatmulBlock<double> matmul_double;
  VectorLoops<float> loops_float;
  VectorLoops<double> loops_double;
  fft_conv::Engine fft_conv;
};

const KernelTable& this_machines_kernels();

// One table per translation unit of an instruction set; avx2 and avx512 exist on x86-64 only.
namespace portable {
const KernelTable& kernels();
}
namespace avx2 {
const KernelTable& kernels();
}
namespace avx512 {
const KernelTable& kernels();
}

}  // namespace graphscale
