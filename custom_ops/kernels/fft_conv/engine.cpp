#include "kernels/fft_conv/engine.h"

#include <cstdlib>
#include <cstring>

namespace graphscale::fft_conv {
namespace {

const Engine& select() {
#if defined(__x86_64__)
  // GRAPHSCALE_SIMD=avx2 or portable leaves the wider ones aside (for tests and comparisons).
  const char* const wish = std::getenv("GRAPHSCALE_SIMD");
  const bool portable = wish != nullptr && std::strcmp(wish, "portable") == 0;
  const bool avx2 = wish != nullptr && std::strcmp(wish, "avx2") == 0;
  __builtin_cpu_init();
  if (!portable && !avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    return engine<16>();
  }
  if (!portable && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return engine<8>();
#endif
  return engine<4>();
}

}  // namespace

const Engine& this_machines_engine() {
  static const Engine& engine = select();
  return engine;
}

}  // namespace graphscale::fft_conv
