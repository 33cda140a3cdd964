// Convolution with one to three spatial dimensions, one thread per result, and its gradients: for
// what the FFT methods do not compute (float64, three dimensions) and for the shortest kernels. The
// sum of a row of taps has the accumulator's type, the sum of rows is float64.
//
// Cost: 2 N F (C / group) K O operations in each pass, every one with a read of x and of the
// weight, most of them from the caches: neighbouring threads have neighbouring results.
#pragma once

#include "core/conv_geometry.h"
#include "kernels/cuda/launch.h"

namespace graphscale::cuda {

struct ConvSizes {
  int64_t ins, outs, group_ins, group_outs, batch;
  int64_t in[3], kernel[3], out[3], stride[3], dilation[3], pad[3];

  explicit ConvSizes(const ConvGeometry& g)
      : ins(g.in_channels),
        outs(g.out_channels),
        group_ins(g.group_inputs()),
        group_outs(g.group_outputs()),
        batch(g.batch) {
    const size_t missing = 3 - g.in.size();
    for (size_t d = 0; d < 3; ++d) {
      const bool there = d >= missing;
      const size_t from = there ? d - missing : 0;
      in[d] = there ? g.in[from] : 1;
      kernel[d] = there ? g.kernel[from] : 1;
      out[d] = there ? g.out[from] : 1;
      stride[d] = there ? g.stride[from] : 1;
      dilation[d] = there ? g.dilation[from] : 1;
      pad[d] = there ? g.pad_begin[from] : 0;
    }
  }

  // The position of x under output i and tap k, or -1.
  GRAPHSCALE_DEVICE int64_t read(int d, int64_t i, int64_t k) const {
    const int64_t at = i * stride[d] + k * dilation[d] - pad[d];
    return at < in[d] ? at : -1;
  }
  // The output that reads position i of x through tap k, or -1.
  GRAPHSCALE_DEVICE int64_t write(int d, int64_t i, int64_t k) const {
    const int64_t at = i + pad[d] - k * dilation[d];
    return at >= 0 && at % stride[d] == 0 && at / stride[d] < out[d] ? at / stride[d] : -1;
  }
};

// The indices of number i in a row-major tensor [count, channels, a, b, c].
struct ConvPlace {
  int64_t image, channel, at[3];
  GRAPHSCALE_DEVICE ConvPlace(int64_t i, int64_t channels, const int64_t (&sizes)[3]) {
    for (int d = 2; d >= 0; --d) {
      at[d] = i % sizes[d];
      i /= sizes[d];
    }
    channel = i % channels;
    image = i / channels;
  }
};

template <typename T>
struct ConvForward {
  using Wide = typename Accumulator<T>::type;
  const T* x;
  const T* weight;
  const T* bias;  // or null
  T* y;
  ConvSizes s;
  GRAPHSCALE_DEVICE void operator()(int64_t index) const {
    const ConvPlace p(index, s.outs, s.out);
    const int64_t group = p.channel / s.group_outs;
    double sum = bias == nullptr ? 0.0 : static_cast<double>(widen(bias[p.channel]));
    // All taps over all channels of the group; rows that lie in the padding are skipped.
    for (int64_t c = 0; c < s.group_ins; ++c) {
      const int64_t plane = p.image * s.ins + group * s.group_ins + c;
      const T* taps =
          weight + (p.channel * s.group_ins + c) * s.kernel[0] * s.kernel[1] * s.kernel[2];
      for (int64_t k0 = 0; k0 < s.kernel[0]; ++k0) {
        const int64_t z = s.read(0, p.at[0], k0);
        for (int64_t k1 = 0; k1 < s.kernel[1]; ++k1, taps += s.kernel[2]) {
          const int64_t row = s.read(1, p.at[1], k1);
          if (z < 0 || row < 0) continue;
          const T* const from = x + ((plane * s.in[0] + z) * s.in[1] + row) * s.in[2];
          Wide part = 0;
          for (int64_t k2 = 0; k2 < s.kernel[2]; ++k2) {
            const int64_t at = s.read(2, p.at[2], k2);
            if (at >= 0)
              part += static_cast<Wide>(widen(taps[k2])) * static_cast<Wide>(widen(from[at]));
          }
          sum += static_cast<double>(part);
        }
      }
    }
    y[index] = narrow<T>(static_cast<Wide>(sum));
  }
};

template <typename T>
struct ConvGradInput {
  using Wide = typename Accumulator<T>::type;
  const T* grad;
  const T* weight;
  T* out;
  ConvSizes s;
  GRAPHSCALE_DEVICE void operator()(int64_t index) const {
    const ConvPlace p(index, s.ins, s.in);
    const int64_t group = p.channel / s.group_ins;
    double sum = 0;
    // All outputs that read this number of x: those whose position times the stride meets it.
    for (int64_t o = group * s.group_outs; o < (group + 1) * s.group_outs; ++o) {
      const int64_t plane = p.image * s.outs + o;
      const T* taps = weight + (o * s.group_ins + p.channel % s.group_ins) * s.kernel[0] *
                                   s.kernel[1] * s.kernel[2];
      for (int64_t k0 = 0; k0 < s.kernel[0]; ++k0) {
        const int64_t z = s.write(0, p.at[0], k0);
        for (int64_t k1 = 0; k1 < s.kernel[1]; ++k1, taps += s.kernel[2]) {
          const int64_t row = s.write(1, p.at[1], k1);
          if (z < 0 || row < 0) continue;
          const T* const from = grad + ((plane * s.out[0] + z) * s.out[1] + row) * s.out[2];
          Wide part = 0;
          for (int64_t k2 = 0; k2 < s.kernel[2]; ++k2) {
            const int64_t at = s.write(2, p.at[2], k2);
            if (at >= 0)
              part += static_cast<Wide>(widen(taps[k2])) * static_cast<Wide>(widen(from[at]));
          }
          sum += static_cast<double>(part);
        }
      }
    }
    out[index] = narrow<T>(static_cast<Wide>(sum));
  }
};

template <typename T>
struct ConvGradWeight {
  using Wide = typename Accumulator<T>::type;
  const T* grad;
  const T* x;
  T* out;
  ConvSizes s;
  GRAPHSCALE_DEVICE void operator()(int64_t index) const {
    const ConvPlace p(index, s.group_ins, s.kernel);
    const int64_t o = p.image;
    const int64_t c = o / s.group_outs * s.group_ins + p.channel;
    double sum = 0;
    // One thread sums one tap over the whole batch: few threads and long sums, for small kernels
    // only.
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t i0 = 0; i0 < s.out[0]; ++i0) {
        const int64_t z = s.read(0, i0, p.at[0]);
        for (int64_t i1 = 0; i1 < s.out[1]; ++i1) {
          const int64_t row = s.read(1, i1, p.at[1]);
          if (z < 0 || row < 0) continue;
          const T* const from = x + (((n * s.ins + c) * s.in[0] + z) * s.in[1] + row) * s.in[2];
          const T* const slopes =
              grad + (((n * s.outs + o) * s.out[0] + i0) * s.out[1] + i1) * s.out[2];
          Wide part = 0;
          for (int64_t i2 = 0; i2 < s.out[2]; ++i2) {
            const int64_t at = s.read(2, i2, p.at[2]);
            if (at >= 0)
              part += static_cast<Wide>(widen(slopes[i2])) * static_cast<Wide>(widen(from[at]));
          }
          sum += static_cast<double>(part);
        }
      }
    }
    out[index] = narrow<T>(static_cast<Wide>(sum));
  }
};

}  // namespace graphscale::cuda
