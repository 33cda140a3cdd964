// What a plan costs: operations and bytes counted from its sizes, and the seconds they stand for.
#pragma once

#include "kernels/fft_conv/geometry.h"

namespace graphscale::fft_conv {

// Counts for one call, over all threads. Vector operations work on one vector of the engine's lanes.
struct Work {
  double transforms = 0;    // vector operations of the transforms: 5 N log2 N each
  double tile_bytes = 0;    // moved by transforms of tiles that stay in the second-level cache
  double far_bytes = 0;     // the same, of larger tiles
  double products = 0;      // vector operations of the products per frequency
  double spectra_bytes = 0; // activation spectra written and read
  double weight_bytes = 0;  // prepared weights read
  double plane_bytes = 0;   // x, y as they come
  double sections = 0;      // parallel loops
};

Work count_work(const Core& core, Pass pass, Method method, int lanes, int threads);

// Seconds for the work on one of the machines these constants were measured on (a Zen 5 core with AVX-512
// at about 4 GHz). Elsewhere only the order of plans matters, and that changes little.
double seconds(const Work& work, int threads);

}  // namespace graphscale::fft_conv
