// Convolution of many channels: tiles -> spectra in memory -> one complex matrix product per
// frequency on tensor cores -> tiles. Spectra of bfloat16 tensors are float16, scaled by powers of
// two so that nothing overflows: bfloat16 would round them eight times as coarsely, and three times
// in a row.
#pragma once

#include "kernels/cuda/fft/layout.h"
#include "kernels/cuda/launch.h"

namespace graphscale::cuda {

// Bytes that the spectra of the kernels take.
size_t dense_spectra_bytes(const Algorithm& algorithm, const Layout& layout);

// The spectra of all kernels, scaled.
void make_dense_spectra(const Context& context, const Algorithm& algorithm, const Layout& layout,
                        void* spectra);

// out <- in with the kernels, + bias where it is not null. Computes as many tiles at a time as
// GRAPHSCALE_CUDA_SPECTRA_MB allows.
void convolve_dense(const Context& context, const Algorithm& algorithm, const Layout& layout,
                    const void* spectra, const Plane* bias);

// taps <- the sum over all tiles of in with out, the gradient to y.
void correlate_dense(const Context& context, const Algorithm& algorithm, const Layout& layout);

}  // namespace graphscale::cuda
