// Picks the table of this machine's instruction set once per process; all accessors read from it.
#include "kernels/cpu/simd/kernel_table.h"

#include "core/fork.h"
#include "kernels/cpu/simd/instruction_set.h"

namespace graphscale {
namespace {

const KernelTable& choose_kernels() {
#if defined(__x86_64__)
  if (instruction_set() == InstructionSet::kAvx512) return avx512::kernels();
  if (instruction_set() == InstructionSet::kAvx2) return avx2::kernels();
#endif
  return portable::kernels();
}

}  // namespace

const KernelTable& this_machines_kernels() {
  static const KernelTable& kernels = choose_kernels();
  return kernels;
}

namespace {

// Chosen before a fork, or a child could find another thread's choice half made.
[[maybe_unused]] const bool forks =
    at_fork(ForkOrder::kInnermost, [] { this_machines_kernels(); }, [] {});

}  // namespace

template <>
const MatmulBlock<float>& this_machines_matmul() {
  return this_machines_kernels().matmul_float;
}

template <>
const MatmulBlock<double>& this_machines_matmul() {
  return this_machines_kernels().matmul_double;
}

template <>
const VectorLoops<float>& this_machines_loops() {
  return this_machines_kernels().loops_float;
}

template <>
const VectorLoops<double>& this_machines_loops() {
  return this_machines_kernels().loops_double;
}

namespace fft_conv {

const Engine& this_machines_engine() { return this_machines_kernels().fft_conv; }

}  // namespace fft_conv
}  // namespace graphscale
