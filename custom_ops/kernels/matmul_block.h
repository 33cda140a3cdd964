// The innermost product of matmul.cpp, included once per instruction set and element type, with
// GRAPHSCALE_REAL, GRAPHSCALE_LANES (elements of one vector) and GRAPHSCALE_ROWS defined.
//
// sum[i][j] = sum over p of a[p][i] * b[p][j], for ROWS rows and two vectors of columns. a and b are
// packed: column p of a is ROWS numbers, row p of b is 2 * LANES numbers. The sums stay in registers.

typedef GRAPHSCALE_REAL Vector
    __attribute__((vector_size(GRAPHSCALE_LANES * sizeof(GRAPHSCALE_REAL))));
typedef GRAPHSCALE_REAL Loose __attribute__((
    vector_size(GRAPHSCALE_LANES * sizeof(GRAPHSCALE_REAL)), aligned(sizeof(GRAPHSCALE_REAL)),
    may_alias));

constexpr int kRows = GRAPHSCALE_ROWS;
constexpr int kColumns = 2 * GRAPHSCALE_LANES;

inline void multiply(int64_t depth, const GRAPHSCALE_REAL* a, const GRAPHSCALE_REAL* b,
                     GRAPHSCALE_REAL* c, int64_t c_row) {
  Vector sum[kRows][2] = {};
  for (int64_t p = 0; p < depth; ++p) {
    const Vector left = *reinterpret_cast<const Loose*>(b);
    const Vector right = *reinterpret_cast<const Loose*>(b + GRAPHSCALE_LANES);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      sum[i][0] += a[i] * left;
      sum[i][1] += a[i] * right;
    }
    a += kRows;
    b += kColumns;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    *reinterpret_cast<Loose*>(c + i * c_row) += sum[i][0];
    *reinterpret_cast<Loose*>(c + i * c_row + GRAPHSCALE_LANES) += sum[i][1];
  }
}

#undef GRAPHSCALE_REAL
#undef GRAPHSCALE_LANES
#undef GRAPHSCALE_ROWS
