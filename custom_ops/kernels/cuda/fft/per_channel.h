// Depthwise convolution, fused: each block loads tiles, transforms them, multiplies by the kernel's
// spectrum, transforms back and stores; nothing else goes through memory.
#pragma once

#include "kernels/cuda/fft/plan.h"
#include "kernels/cuda/matmul.h"

namespace graphscale::cuda {

// Numbers of type Complex that the kernels' spectra take.
int64_t channel_spectra_count(const ConvGeometry& g, int size);

// The spectra of all kernels, conjugated and scaled, [C_out, S (frequency), S / 2 (column)].
void make_channel_spectra(const Context& context, const ConvGeometry& g, int size,
                          const Plane& taps, Complex* spectra);

// out <- in with the kernels, + bias where it is not null. Input channel of output o: o /
// multiplier.
void convolve_per_channel(const Context& context, int64_t channels, int64_t multiplier, int size,
                          const Layout& layout, const Complex* spectra, const Plane* bias);

// taps <- the sum over all tiles of in with out, the gradient to y.
void correlate_per_channel(const Context& context, int64_t channels, int64_t multiplier, int size,
                           const Layout& layout);

}  // namespace graphscale::cuda
