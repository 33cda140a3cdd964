// What operators prepack of their weights (an FFTConv its spectra), kept between calls from Python:
// in torch nobody says that weights are constant, so the first call with some values only remembers
// a fingerprint of them, and from the second on what was prepacked is kept until the values change.
#pragma once

#include <memory>

#include "core/operator.h"

namespace graphscale::torch {

// What op.prepack_function makes of the call's weights, or null where that is not worth it (yet).
// Kept are GRAPHSCALE_PREPACKED_MB megabytes at most (an environment variable; 512 without it), the
// last used ones. From any thread.
std::shared_ptr<const Prepacked> keep_prepacked(const Operator& op, const Call& call);

}  // namespace graphscale::torch
