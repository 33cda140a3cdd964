// Asks the processor once per process.
#include "kernels/cpu/simd/instruction_set.h"

#include <cstdlib>
#include <cstring>

namespace graphscale {
namespace {

InstructionSet detect() {
#if defined(__x86_64__)
  const char* const wish = std::getenv("GRAPHSCALE_SIMD");
  const bool portable = wish != nullptr && std::strcmp(wish, "portable") == 0;
  const bool avx2 = wish != nullptr && std::strcmp(wish, "avx2") == 0;
  __builtin_cpu_init();
  if (!portable && !avx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw")) {
    return InstructionSet::kAvx512;
  }
  if (!portable && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return InstructionSet::kAvx2;
  }
#endif
  return InstructionSet::kPortable;
}

}  // namespace

InstructionSet instruction_set() {
  static const InstructionSet set = detect();
  return set;
}

}  // namespace graphscale
