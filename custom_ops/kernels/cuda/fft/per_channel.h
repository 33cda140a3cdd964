// Convolution of few channels per group, fused: each block loads tiles, transforms them, multiplies
// by the kernels' spectra, transforms back and stores; nothing else goes through memory.
#pragma once

#include "kernels/cuda/fft/layout.h"
#include "kernels/cuda/launch.h"

namespace graphscale::cuda {

// The number of Complex numbers in the spectra of the kernels.
int64_t channel_spectra_count(const Layout& layout, int size);

// The spectra of all kernels, scaled: [output][input][S (column)][S / 2 (row)].
void make_channel_spectra(const Context& context, int size, const Layout& layout, Complex* spectra);

// out <- in with the kernels, + bias where it is not null.
void convolve_per_channel(const Context& context, int size, const Layout& layout,
                          const Complex* spectra, const Plane* bias);

// taps <- the sum over all tiles of in with out, the gradient to y.
void correlate_per_channel(const Context& context, int size, const Layout& layout);

}  // namespace graphscale::cuda
