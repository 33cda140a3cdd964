// Convolution of many channels: tiles -> spectra in memory -> one complex matrix product per
// frequency on tensor cores -> tiles.
#pragma once

#include "kernels/cuda/fft/layout.h"

namespace graphscale::cuda {

// Numbers of type Complex that the kernels' spectra take.
int64_t dense_spectra_count(const Layout& layout, int size);

// The spectra of all kernels, scaled.
void make_dense_spectra(const Context& context, int size, const Layout& layout, Complex* spectra);

// out <- in with the kernels, + bias where it is not null. As many tiles at a time as memory is
// allowed for.
void convolve_dense(const Context& context, const Plan& plan, const Layout& layout,
                    const Complex* spectra, const Plane* bias);

// taps <- the sum over all tiles of in with out, the gradient to y.
void correlate_dense(const Context& context, const Plan& plan, const Layout& layout);

}  // namespace graphscale::cuda
