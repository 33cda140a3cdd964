// Two-dimensional real transforms of L tiles at once. A tile's half spectrum lies as [y][kx][re L |
// im L], kx = 0 ... width/2. Two rows go through one complex transform as its real and imaginary
// part; a tile of one long row has its own (long_fft-inl.h).
//
// Cost per tile of T x T: T/2 row transforms and T/2 + 1 column transforms of T points each, about
// 2.5 T^2 log2(T^2) operations; the half spectrum is written and read once between rows and
// columns.
//
// Scaling: a forward transform leaves a factor 2 (the split of a row pair without its halves); the
// inverse divides by the factors of both transforms of a product.
#pragma once

#include "kernels/cpu/fft_conv/long_fft-inl.h"
#include "kernels/cpu/fft_conv/planes-inl.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

template <int L>
class Tile {
 public:
  // memory: tile_floats(core, L), aligned to a vector.
  Tile(const Core& core, float* memory)
      : height_(core.y.tile),
        width_(core.x.tile),
        pitch_(core.columns() * 2 * L),
        fft_y_(find_fft<L>(core.y.tile)),
        fft_x_(find_fft<L>(core.x.tile)),
        scale_(0.25f / static_cast<float>(core.y.tile * core.x.tile)),
        spectrum_(memory),
        row_(memory + (core.y.tile + 1) * pitch_),
        row_out_(row_ + (kMaxFft + L) * 2 * L),
        long_row_(memory + pitch_),
        long_work_(row_out_ + kMaxFft * 2 * L) {}

  float* spectrum() const { return spectrum_; }
  float* column() const { return row_; }  // scratch for a column between two transforms
  int height() const { return height_; }

  // Reads rows x columns of the planes (zero beyond) and transforms all rows.
  void forward_rows(const Planes<L>& planes, int64_t rows, int64_t columns,
                    Magnitudes<L>& read) const {
    if (width_ > kMaxFft) return forward_long_row(planes, columns, read);
    // Rows y and y + 1 are the real and the imaginary part of one complex transform: half the work
    // of two. Rows of zeros, and the part of a row behind what was read, are cleared instead of
    // loaded.
    for (int64_t y = 0; y < height_; y += 2) {
      float* const a = spectrum_ + y * pitch_;
      float* const b = spectrum_ + (y + 1) * pitch_;
      const bool has_a = y < rows && load_row<L>(planes, y, columns, row_, 2 * L, read);
      const bool has_b = y + 1 < rows && load_row<L>(planes, y + 1, columns, row_ + L, 2 * L, read);
      if (!has_a && !has_b) {
        clear(a, pitch_);
        clear(b, pitch_);
        continue;
      }
      if (!has_a) clear_part(row_, 0, columns);
      if (!has_b) clear_part(row_ + L, 0, columns);
      clear_part(row_, columns, width_);
      clear_part(row_ + L, columns, width_);
      fft_x_(row_, row_ + L, 2 * L, row_out_, row_out_ + L, 2 * L);
      split(a, b);
    }
  }

  void forward_column(int64_t kx, float* out, ptrdiff_t stride) const {
    const float* const in = spectrum_ + kx * 2 * L;
    fft_y_(in, in + L, pitch_, out, out + L, stride);
  }

  // The inverse of a column (scaled by inverse_rows), back into the half spectrum.
  void inverse_column(int64_t kx, const float* in, ptrdiff_t stride) const {
    float* const out = spectrum_ + kx * 2 * L;
    // The inverse transform is the forward one with re and im exchanged, both ways.
    fft_y_(in + L, in, stride, out + L, out, pitch_);
  }

  // The inverse of the rows, the first rows x columns of which go to the planes.
  void inverse_rows(const Planes<L>& planes, int64_t rows, int64_t columns,
                    const Vector<L>& bias) const {
    if (width_ > kMaxFft) {
      LongFft<L>(width_, long_work_).inverse(spectrum_, long_row_);
      return store_row<L>(planes, 0, columns, long_row_, L, scale_, bias);
    }
    // Two rows per complex transform again. Only the rows of outputs are transformed back; in a
    // tile of odd height the last one has a row of zeros as its partner.
    for (int64_t y = 0; y < rows; y += 2) {
      if (y + 1 == height_) clear(spectrum_ + height_ * pitch_, pitch_);
      join(spectrum_ + y * pitch_, spectrum_ + (y + 1) * pitch_);
      fft_x_(row_out_ + L, row_out_, 2 * L, row_ + L, row_, 2 * L);
      store_row<L>(planes, y, columns, row_, 2 * L, scale_, bias);
      if (y + 1 < rows) store_row<L>(planes, y + 1, columns, row_ + L, 2 * L, scale_, bias);
    }
  }

 private:
  void forward_long_row(const Planes<L>& planes, int64_t columns, Magnitudes<L>& read) const {
    if (!load_row<L>(planes, 0, columns, long_row_, L, read)) return clear(spectrum_, pitch_);
    clear(long_row_ + columns * L, (width_ - columns) * L);
    LongFft<L>(width_, long_work_).forward(long_row_, spectrum_);
  }

  static void clear(float* p, int64_t count) {
    for (int64_t i = 0; i < count; i += L) store<L>(p + i, Vector<L>{});
  }
  static void clear_part(float* p, int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) store<L>(p + u * 2 * L, Vector<L>{});
  }

  // row_out_ = a + i b for real rows: their spectra times 2.
  void split(float* a, float* b) const {
    // With Z = A + i B and real rows: 2 A[k] = Z[k] + conj Z[-k] and 2 i B[k] = Z[k] - conj Z[-k].
    for (int k = 0; k <= width_ / 2; ++k) {
      const float* const z = row_out_ + k * 2 * L;
      const float* const w = row_out_ + (k == 0 ? 0 : width_ - k) * 2 * L;
      const Vector<L> zr = load<L>(z), zi = load<L>(z + L), wr = load<L>(w), wi = load<L>(w + L);
      store<L>(a + k * 2 * L, zr + wr);
      store<L>(a + k * 2 * L + L, zi - wi);
      store<L>(b + k * 2 * L, zi + wi);
      store<L>(b + k * 2 * L + L, wr - zr);
    }
  }

  // The full complex spectrum of a + i b, from half spectra of real rows.
  void join(const float* a, const float* b) const {
    // Z[k] = A[k] + i B[k]; the other half follows from A[-k] = conj A[k] and B[-k] = conj B[k].
    for (int k = 0; k <= width_ / 2; ++k) {
      const Vector<L> ar = load<L>(a + k * 2 * L), ai = load<L>(a + k * 2 * L + L);
      const Vector<L> br = load<L>(b + k * 2 * L), bi = load<L>(b + k * 2 * L + L);
      float* const z = row_out_ + k * 2 * L;
      if (k > 0) {
        float* const w = row_out_ + (width_ - k) * 2 * L;
        store<L>(w, ar + bi);
        store<L>(w + L, br - ai);
      }
      store<L>(z, ar - bi);  // after w: they are one at k = width / 2
      store<L>(z + L, ai + br);
    }
  }

  int height_, width_;
  int64_t pitch_;
  FftFunction fft_y_, fft_x_;
  float scale_;
  float *spectrum_, *row_, *row_out_;
  float *long_row_, *long_work_;  // the place of the second row, and what tile_floats adds
};

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
