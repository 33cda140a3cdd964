// Prepacked weights (such as the spectra of FFTConv's weights), kept between calls from Python.
// torch does not say whether weights are constant. So the first call with certain values stores a
// fingerprint of them, the second one prepacks them, and later ones use that until the values
// change.
#pragma once

#include <memory>

#include "core/operator.h"

namespace graphscale::torch {

// The result of op.prepack_function for the call's weights; null where it has none, or at the first
// call with these values. The cache holds at most GRAPHSCALE_PREPACKED_MB megabytes (an environment
// variable; 512 by default) and drops the least recently used. May be called from any thread.
std::shared_ptr<const Prepacked> keep_prepacked(const Operator& op, const Call& call);

}  // namespace graphscale::torch
