// Convolution by matrix products over unfolded tiles of the image: the reference for the FFT
// kernels.
#pragma once

#include "core/conv_geometry.h"

namespace graphscale {

// T is float or double; bias may be null; y is clipped to the bounds.
template <typename T>
void conv_direct(const Context& context, const ConvGeometry& geometry, const T* x, const T* weight,
                 const T* bias, const Bounds& bounds, T* y);

template <typename T>
void conv_direct_grad_input(const Context& context, const ConvGeometry& geometry, const T* grad,
                            const T* weight, T* grad_x);

template <typename T>
void conv_direct_grad_weight(const Context& context, const ConvGeometry& geometry, const T* grad,
                             const T* x, T* grad_weight);

}  // namespace graphscale
