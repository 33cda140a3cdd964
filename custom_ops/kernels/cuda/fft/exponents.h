// Powers of two that bring numbers of any size into float16's range.
#pragma once

#include "kernels/cuda/launch.h"

namespace graphscale::cuda {

// exponents[i] <- an e, at most 126, for which 2^(growth + e) |x| <= 2^15 for every finite number x
// of image i: images of `count` numbers each, one after the other.
void find_exponents(const Context& context, const BFloat16* numbers, int64_t images, int64_t count,
                    int growth, int* exponents);

}  // namespace graphscale::cuda
