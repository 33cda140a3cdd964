// The minimum and maximum to which a convolution clips its results; a minimum of 0 is a Relu.
#pragma once

#include <limits>

namespace graphscale {

struct Bounds {
  float minimum = -std::numeric_limits<float>::infinity();
  float maximum = std::numeric_limits<float>::infinity();
};

inline bool are_finite(const Bounds& bounds) {
  return bounds.minimum != -std::numeric_limits<float>::infinity() ||
         bounds.maximum != std::numeric_limits<float>::infinity();
}

}  // namespace graphscale
