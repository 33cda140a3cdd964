// Reads and writes the numbers of tiles: images, gradients and kernels in memory, through the
// geometry of kernels/cpu/fft_conv (phases of strides and dilations, flipped kernels).
//
// A long line of numbers may be folded: row r of its tiles holds the core positions fold * r,
// fold * r + 1, ..., so that neighbouring rows overlap.
#pragma once

#include "kernels/cuda/fft/tile.h"

namespace graphscale::cuda {

// Position u of a tile is core position v = tile * advance + phase * phase_advance + u; where last
// is not negative, last - v. It lies at step * v + origin + phases (over divisor, if that divides)
// of `extent` positions.
struct Axis {
  int step, origin, extent, divisor, last;
  int limit;  // positions that a tile has
  int advance, tiles, batch_phases;
  int channel_phases, phase_advance, phase_offset;
};

// Number n as three digits, the last of `low` and the middle one of `middle` values.
struct Digits {
  int high, middle, low;
  GRAPHSCALE_DEVICE Digits(uint32_t n, int middles, int lows) {
    const uint32_t rest = n / static_cast<uint32_t>(lows);
    low = static_cast<int>(n % static_cast<uint32_t>(lows));
    middle = static_cast<int>(rest % static_cast<uint32_t>(middles));
    high = static_cast<int>(rest / static_cast<uint32_t>(middles));
  }
};

// A tile of a plane: the plane's first number, and the position of the tile's first number.
struct Place {
  int64_t base;
  int core_y, core_x, offset_y, offset_x;
};

// One column of a tile, as far as it lies in the plane: row r at first + r * step.
template <int S>
struct Column {
  int64_t first;
  int step;
  Bits<S> rows;
};

// base[r * step] where a bit is set, else 0; and writing it there. Each is a predicated access in
// PTX, because the compiler would make a branch of a condition.
#ifdef __CUDACC__
template <int r>
GRAPHSCALE_DEVICE float read_where(uint32_t there, const float* base, int step) {
  float value;
  asm("{ .reg .pred p; .reg .b64 at; setp.ne.u32 p, %2, 0; mad.wide.s32 at, %3, %4, %1; "
      "mov.f32 %0, 0f00000000; @p ld.global.nc.f32 %0, [at]; }"
      : "=f"(value)
      : "l"(base), "r"(there), "r"(step), "n"(4 * r));
  return value;
}
template <int r>
GRAPHSCALE_DEVICE uint16_t read_where(uint32_t there, const uint16_t* base, int step) {
  uint16_t value;
  asm("{ .reg .pred p; .reg .b64 at; setp.ne.u32 p, %2, 0; mad.wide.s32 at, %3, %4, %1; "
      "mov.u16 %0, 0; @p ld.global.nc.u16 %0, [at]; }"
      : "=h"(value)
      : "l"(base), "r"(there), "r"(step), "n"(2 * r));
  return value;
}
template <int r>
GRAPHSCALE_DEVICE void write_where(uint32_t there, float value, float* base, int step) {
  asm volatile(
      "{ .reg .pred p; .reg .b64 at; setp.ne.u32 p, %1, 0; mad.wide.s32 at, %2, %3, %0; "
      "@p st.global.f32 [at], %4; }" ::"l"(base),
      "r"(there), "r"(step), "n"(4 * r), "f"(value));
}
template <int r>
GRAPHSCALE_DEVICE void write_where(uint32_t there, uint16_t value, uint16_t* base, int step) {
  asm volatile(
      "{ .reg .pred p; .reg .b64 at; setp.ne.u32 p, %1, 0; mad.wide.s32 at, %2, %3, %0; "
      "@p st.global.u16 [at], %4; }" ::"l"(base),
      "r"(there), "r"(step), "n"(2 * r), "h"(value));
}
#else
template <int r, typename T>
T read_where(uint32_t there, const T* base, int step) {
  return there != 0 ? base[static_cast<int64_t>(step) * r] : T{};
}
template <int r, typename T>
void write_where(uint32_t there, T value, T* base, int step) {
  if (there != 0) base[static_cast<int64_t>(step) * r] = value;
}
#endif

struct Plane {
  void* data;
  Type type;               // float32, float16 or bfloat16
  int64_t image, channel;  // distances, in numbers
  int pitch, fold;         // fold 0: not folded
  Axis y, x;

  // Tile number m of all images and their phases, in a channel counted with its phases.
  GRAPHSCALE_DEVICE Place place(int64_t m, int64_t of_channel) const {
    const Digits tile(static_cast<uint32_t>(m), y.tiles, x.tiles);
    const Digits phase(static_cast<uint32_t>(tile.high), y.batch_phases, x.batch_phases);
    Place p = channel_place(of_channel);
    p.base += phase.high * image;
    p.core_y += tile.middle * y.advance;
    p.core_x += tile.low * x.advance;
    p.offset_y += phase.middle;
    p.offset_x += phase.low;
    return p;
  }
  GRAPHSCALE_DEVICE Place channel_place(int64_t of_channel) const {
    const Digits c(static_cast<uint32_t>(of_channel), y.channel_phases, x.channel_phases);
    return {c.high * channel, c.middle * y.phase_advance, c.low * x.phase_advance,
            c.middle * y.phase_offset, c.low * x.phase_offset};
  }

  // Column u of a tile; columns with a divisor, or flipped, have number() only.
  template <int S>
  GRAPHSCALE_DEVICE Column<S> column(const Place& p, int u) const {
    const int at = x.step * (p.core_x + u) + x.origin + p.offset_x;
    // Which rows lie in the plane is worked out once per column, as a set of bits; the loads then
    // need no comparison.
    int start = y.step * p.core_y + y.origin + p.offset_y;
    int extent = y.extent;
    Column<S> c{p.base + static_cast<int64_t>(start) * pitch + at, y.step * pitch, Bits<S>(0, 0)};
    bool inside = u < x.limit;
    if (fold > 0) {
      start += at;
      extent = x.extent;
    } else {
      inside = inside && at >= 0 && at < x.extent;
    }
    const int begin = start >= 0 ? 0 : divide(y.step - 1 - start);
    const int end = !inside || start >= extent ? 0 : min(divide(extent - 1 - start) + 1, y.limit);
    c.rows = Bits<S>(begin, end);
    return c;
  }

  // Where row v of column u is, or -1.
  GRAPHSCALE_DEVICE int64_t number(const Place& p, int v, int u) const {
    if (v >= y.limit || u >= x.limit) return -1;
    if (fold > 0) {
      const int at = locate(x, fold * (p.core_y + v) + p.core_x + u, p.offset_x);
      return at < 0 ? -1 : p.base + at;
    }
    const int row = locate(y, p.core_y + v, p.offset_y);
    const int at = locate(x, p.core_x + u, p.offset_x);
    return row < 0 || at < 0 ? -1 : p.base + static_cast<int64_t>(row) * pitch + at;
  }

  GRAPHSCALE_DEVICE float read(int64_t at) const {
    return type == Type::kFloat32 ? static_cast<const float*>(data)[at]
                                  : from_16(static_cast<const uint16_t*>(data)[at]);
  }
  GRAPHSCALE_DEVICE void write(int64_t at, float value) const {
    if (type == Type::kFloat32) {
      static_cast<float*>(data)[at] = value;
    } else {
      static_cast<uint16_t*>(data)[at] = to_16(value);
    }
  }

  // line <- columns a (real) and b (imaginary parts).
  template <int S>
  GRAPHSCALE_DEVICE void load(const Column<S>& a, const Column<S>& b, Line<S>& line) const {
    if (type == Type::kFloat32) {
      const float* const from_a = static_cast<const float*>(data) + a.first;
      const float* const from_b = static_cast<const float*>(data) + b.first;
      unrolled<S>([&](auto i) {
        constexpr int r = decltype(i)::value;
        line.re[r] = read_where<r>(a.rows.bit(r), from_a, a.step);
        line.im[r] = read_where<r>(b.rows.bit(r), from_b, b.step);
      });
    } else {
      const uint16_t* const from_a = static_cast<const uint16_t*>(data) + a.first;
      const uint16_t* const from_b = static_cast<const uint16_t*>(data) + b.first;
      unrolled<S>([&](auto i) {
        constexpr int r = decltype(i)::value;
        line.re[r] = from_16(read_where<r>(a.rows.bit(r), from_a, a.step));
        line.im[r] = from_16(read_where<r>(b.rows.bit(r), from_b, b.step));
      });
    }
  }

  // Columns a and b <- line, as transformed.
  template <int S>
  GRAPHSCALE_DEVICE void store(const Column<S>& a, const Column<S>& b, const Line<S>& line) const {
    // All loads are issued before any is used: S of them are on their way at once.
    if (type == Type::kFloat32) {
      float* const to_a = static_cast<float*>(data) + a.first;
      float* const to_b = static_cast<float*>(data) + b.first;
      unrolled<S>([&](auto i) {
        constexpr int r = decltype(i)::value;
        constexpr int at = position<S>(r);
        write_where<r>(a.rows.bit(r), line.re[at], to_a, a.step);
        write_where<r>(b.rows.bit(r), line.im[at], to_b, b.step);
      });
    } else {
      uint16_t* const to_a = static_cast<uint16_t*>(data) + a.first;
      uint16_t* const to_b = static_cast<uint16_t*>(data) + b.first;
      unrolled<S>([&](auto i) {
        constexpr int r = decltype(i)::value;
        constexpr int at = position<S>(r);
        write_where<r>(a.rows.bit(r), to_16(line.re[at]), to_a, a.step);
        write_where<r>(b.rows.bit(r), to_16(line.im[at]), to_b, b.step);
      });
    }
  }

 private:
  GRAPHSCALE_DEVICE int divide(int n) const {
    return y.step == 1 ? n : static_cast<int>(static_cast<uint32_t>(n) / y.step);
  }
  static GRAPHSCALE_DEVICE int locate(const Axis& axis, int v, int offset) {
    const int at = axis.step * (axis.last < 0 ? v : axis.last - v) + axis.origin + offset;
    if (at < 0 || at % axis.divisor != 0) return -1;
    return at / axis.divisor < axis.extent ? at / axis.divisor : -1;
  }

  GRAPHSCALE_DEVICE float from_16(uint16_t bits) const {
    Float16 half;
    BFloat16 brain;
    half.bits = brain.bits = bits;
    return type == Type::kFloat16 ? widen(half) : widen(brain);
  }
  GRAPHSCALE_DEVICE uint16_t to_16(float value) const {
    return type == Type::kFloat16 ? narrow<Float16>(value).bits : narrow<BFloat16>(value).bits;
  }
};

// The kernels: plane.y and plane.x hold what the core's taps say, limits are the core kernel's
// sizes.
struct Taps {
  Plane plane;
  int64_t group, to, from;  // distances of groups, outputs and inputs, in numbers
  int outs;                 // of a group, with their phases
  int out_phases_y, out_phases_x, in_phases_y, in_phases_x;

  // The kernel between output o (over all groups) and input i of its group, both with phases.
  GRAPHSCALE_DEVICE Place place(int64_t o, int64_t i) const {
    const uint32_t g = static_cast<uint32_t>(o) / static_cast<uint32_t>(outs);
    const Digits out(static_cast<uint32_t>(o) - g * static_cast<uint32_t>(outs), out_phases_y,
                     out_phases_x);
    const Digits in(static_cast<uint32_t>(i), in_phases_y, in_phases_x);
    const int phase_y = out.middle + in.middle;
    return {g * group + out.high * to + in.high * from, phase_y * plane.y.phase_advance, 0,
            phase_y * plane.y.phase_offset, out.low + in.low};
  }

  // line <- columns a and b, by way of `room`: S numbers of a thread's own, kApart from each other.
  template <int S, int kApart>
  GRAPHSCALE_DEVICE void load(const Place& p, int a, int b, Complex* room, Line<S>& line) const {
#pragma unroll 4
    for (int r = 0; r < S; ++r) {
      const int64_t at_a = plane.number(p, r, a);
      const int64_t at_b = plane.number(p, r, b);
      room[r * kApart] = {at_a < 0 ? 0.0f : plane.read(at_a), at_b < 0 ? 0.0f : plane.read(at_b)};
    }
    unrolled<S>([&](auto i) {
      constexpr int r = decltype(i)::value;
      const Complex value = room[r * kApart];
      line.re[r] = value.re;
      line.im[r] = value.im;
    });
  }

  // Columns a and b <- line (as transformed), likewise.
  template <int S, int kApart>
  GRAPHSCALE_DEVICE void store(const Place& p, int a, int b, Complex* room,
                               const Line<S>& line) const {
    unrolled<S>([&](auto i) {
      constexpr int r = decltype(i)::value;
      constexpr int at = position<S>(r);
      room[r * kApart] = {line.re[at], line.im[at]};
    });
#pragma unroll 4
    for (int r = 0; r < S; ++r) {
      const int64_t at_a = plane.number(p, r, a);
      const int64_t at_b = plane.number(p, r, b);
      const Complex value = room[r * kApart];
      if (at_a >= 0) plane.write(at_a, value.re);
      if (at_b >= 0) plane.write(at_b, value.im);
    }
  }
};

}  // namespace graphscale::cuda
