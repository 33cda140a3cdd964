// The cost of an algorithm: operations and bytes, counted from its sizes, and the seconds that
// these take.
#pragma once

#include "kernels/cpu/fft_conv/geometry.h"

namespace graphscale::fft_conv {

// Counts for one call, over all threads. Vector operations work on one vector of the engine's
// lanes.
struct Work {
  double transforms = 0;  // vector operations of the transforms: 5 N log2 N each
  double squares = 0;     // squares of lanes x lanes values read or written, with a transposition
  double tiles = 0;       // sets of tiles transformed
  double products = 0;    // vector operations of the products per frequency
  double spectra_bytes = 0;   // activation spectra written and read
  double weight_bytes = 0;    // prepacked weights read
  double gradient_bytes = 0;  // spectra of weight gradients written and read
  double sections = 0;        // parallel loops
};

Work count_work(const Core& core, Pass pass, Method method, int lanes, int threads);

// Seconds for the work on one of the machines these constants were measured on (a Zen 5 core with
// AVX-512 at about 4 GHz). Elsewhere only the order of algorithms matters, and that changes little.
double seconds(const Work& work, int threads);

}  // namespace graphscale::fft_conv
