// The widest vectors that this processor has. The environment variable GRAPHSCALE_SIMD=avx2 or
// portable limits them, for tests and comparisons.
#pragma once

namespace graphscale {

enum class InstructionSet { kPortable, kAvx2, kAvx512 };

InstructionSet instruction_set();

}  // namespace graphscale
