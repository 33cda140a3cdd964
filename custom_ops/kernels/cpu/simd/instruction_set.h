// Which vectors this processor has. GRAPHSCALE_SIMD=avx2 or portable in the environment leaves the
// wider ones aside (for tests and comparisons).
#pragma once

namespace graphscale {

enum class InstructionSet { kPortable, kAvx2, kAvx512 };

InstructionSet instruction_set();

}  // namespace graphscale
