#include "kernels/cpu/fft_conv/engine.h"

#include "kernels/cpu/instruction_set.h"

namespace graphscale::fft_conv {

const Engine& this_machines_engine() {
#if defined(__x86_64__)
  if (instruction_set() == InstructionSet::kAvx512) return engine<16>();
  if (instruction_set() == InstructionSet::kAvx2) return engine<8>();
#endif
  return engine<4>();
}

}  // namespace graphscale::fft_conv
