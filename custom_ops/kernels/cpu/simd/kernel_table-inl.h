// The table of one instruction set (kernel_table.h). portable.cpp, avx2.cpp and avx512.cpp define
// GRAPHSCALE_INSTRUCTION_SET and GRAPHSCALE_VECTOR_BYTES and include this file.
#pragma once

#include "kernels/cpu/fft_conv/engine-inl.h"
#include "kernels/cpu/matmul-inl.h"
#include "kernels/cpu/simd/kernel_table.h"
#include "kernels/cpu/vector_loops-inl.h"

namespace graphscale::GRAPHSCALE_INSTRUCTION_SET {

const KernelTable& kernels() {
  static constexpr KernelTable kTable = {matmul_block<float>(), matmul_block<double>(),
                                         vector_loops<float>(), vector_loops<double>(),
                                         fft_conv::GRAPHSCALE_INSTRUCTION_SET::kEngine};
  return kTable;
}

}  // namespace graphscale::GRAPHSCALE_INSTRUCTION_SET
