#include "kernels/cpu/vector_loops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/instruction_set.h"

namespace graphscale {
namespace {

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512")
namespace avx512_float {
#define GRAPHSCALE_REAL float
#define GRAPHSCALE_LANES 16
#include "kernels/cpu/vector_loops_block.h"
}  // namespace avx512_float
namespace avx512_double {
#define GRAPHSCALE_REAL double
#define GRAPHSCALE_LANES 8
#include "kernels/cpu/vector_loops_block.h"
}  // namespace avx512_double
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2_float {
#define GRAPHSCALE_REAL float
#define GRAPHSCALE_LANES 8
#include "kernels/cpu/vector_loops_block.h"
}  // namespace avx2_float
namespace avx2_double {
#define GRAPHSCALE_REAL double
#define GRAPHSCALE_LANES 4
#include "kernels/cpu/vector_loops_block.h"
}  // namespace avx2_double
#pragma GCC pop_options
#endif
namespace plain_float {
#define GRAPHSCALE_REAL float
#define GRAPHSCALE_LANES 4
#include "kernels/cpu/vector_loops_block.h"
}  // namespace plain_float
namespace plain_double {
#define GRAPHSCALE_REAL double
#define GRAPHSCALE_LANES 2
#include "kernels/cpu/vector_loops_block.h"
}  // namespace plain_double

#define GRAPHSCALE_LOOPS(set)                                                                       \
  {set::absolute_power, set::power,          set::sum,                                              \
   set::most,           set::exponentials,   set::add_norm_gradient, set::norm_gradient_of_windows, \
   set::largest,        set::add_to_largest, set::select_largest,    set::kLanes}

}  // namespace

template <>
const VectorLoops<float>& this_machines_loops() {
#if defined(__x86_64__)
  static const VectorLoops<float> avx512 = GRAPHSCALE_LOOPS(avx512_float);
  static const VectorLoops<float> avx2 = GRAPHSCALE_LOOPS(avx2_float);
  if (instruction_set() == InstructionSet::kAvx512) return avx512;
  if (instruction_set() == InstructionSet::kAvx2) return avx2;
#endif
  static const VectorLoops<float> plain = GRAPHSCALE_LOOPS(plain_float);
  return plain;
}

template <>
const VectorLoops<double>& this_machines_loops() {
#if defined(__x86_64__)
  static const VectorLoops<double> avx512 = GRAPHSCALE_LOOPS(avx512_double);
  static const VectorLoops<double> avx2 = GRAPHSCALE_LOOPS(avx2_double);
  if (instruction_set() == InstructionSet::kAvx512) return avx512;
  if (instruction_set() == InstructionSet::kAvx2) return avx2;
#endif
  static const VectorLoops<double> plain = GRAPHSCALE_LOOPS(plain_double);
  return plain;
}

}  // namespace graphscale
