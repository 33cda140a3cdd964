// Runs every pass of many FFT convolutions with many algorithms, through the C API that the tests
// in Python use, on memory that ends where the tensors end. Values are compared by adjointness
// only; the tests in Python compare them with torch. GRAPHSCALE_SIMD chooses the instruction set.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sstream>
#include <string>

#include "kernels/cpu/fft_conv/engine.h"
#include "tests/guarded_memory.h"

extern "C" {
const char* fft_conv_check(const int64_t* sizes);
int fft_conv_supports(const int64_t* sizes, int pass, const char* algorithm);
const char* fft_conv_candidates(const int64_t* sizes, int pass, int threads);
const char* fft_conv_run(const int64_t* sizes, int pass, const char* algorithm, const float* a,
                         const float* b, const float* bias, float* out);
}

namespace graphscale::fft_conv {
namespace {

constexpr int kPasses = 3;
constexpr int64_t kMaxProducts = 2'000'000;  // of a direct convolution, which sanitizers slow down

std::mt19937& generator() {
  static std::mt19937 made(2);
  return made;
}

int64_t random_in(int64_t least, int64_t most) {
  return least + static_cast<int64_t>(generator()() % static_cast<uint64_t>(most - least + 1));
}

const int64_t* sizes_of(const Problem& p) { return &p.batch; }
static_assert(offsetof(Problem, bounds) == 16 * sizeof(int64_t), "a problem begins with 16 sizes");

struct Tensors {
  GuardedMemory memory;
  Guard guard;
  int64_t x_count, w_count, y_count;
  float *x, *w, *bias, *dy, *y, *dx, *dw;

  Tensors(const Problem& p, Guard guard) : guard(guard) {
    x_count = p.batch * p.in_channels * p.height * p.width;
    w_count = p.out_channels * (p.in_channels / p.groups) * p.kernel_height * p.kernel_width;
    y_count = p.batch * p.out_channels * p.out_height() * p.out_width();
    x = random_values(x_count);
    w = random_values(w_count);
    bias = random_values(p.out_channels);
    dy = random_values(y_count);
    y = room(y_count);
    dx = room(x_count);
    dw = room(w_count);
  }

  float* room(int64_t count) {
    return static_cast<float*>(memory.make(static_cast<size_t>(count) * sizeof(float), guard));
  }
  float* random_values(int64_t count) {
    float* const values = room(count);
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(random_in(-500, 500)) / 500;
    return values;
  }
};

double dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

double norm(const float* a, int64_t count) { return std::sqrt(dot(a, a, count)); }

// The algorithms `found` by the cost model, all Winograd tiles, and `more` other ones that are
// supported.
std::vector<std::string> algorithms(const Problem& p, int pass, std::vector<std::string> found,
                                    int more) {
  std::istringstream chosen(fft_conv_candidates(sizes_of(p), pass, 2));
  for (std::string algorithm; std::getline(chosen, algorithm, ';');) {
    if (algorithm == "direct") continue;
    found.push_back(algorithm);
    break;
  }
  const int64_t products = p.batch * p.in_channels / p.groups * p.out_channels * p.out_height() *
                           p.out_width() * p.kernel_height * p.kernel_width;
  if (products <= kMaxProducts && fft_conv_supports(sizes_of(p), pass, "direct") != 0) {
    found.push_back("direct");
  }
  const std::vector<int>& sizes = fft_sizes();
  const auto one_of = [&](size_t count) {
    return sizes[static_cast<size_t>(random_in(0, static_cast<int64_t>(count) - 1))];
  };
  for (const int height : winograd_sizes()) {
    for (const int width : winograd_sizes()) {
      const std::string text = to_string({Method::kWinograd, height, width});
      if (fft_conv_supports(sizes_of(p), pass, text.c_str()) != 0) found.push_back(text);
    }
  }
  for (int tries = 0; more > 0 && tries < 500; ++tries) {
    const bool row = p.height == 1 && random_in(0, 1) == 0;
    const int height = row ? 1 : one_of(20), width = one_of(row ? 26 : 20);
    if (height * width > 4096) continue;
    const Algorithm algorithm{random_in(0, 1) == 0 ? Method::kDense : Method::kPerChannel, height,
                              width};
    const std::string text = to_string(algorithm);
    if (fft_conv_supports(sizes_of(p), pass, text.c_str()) == 0) continue;
    found.push_back(text);
    --more;
  }
  return found;
}

int calls = 0;

// Runs all passes by their algorithms; returns the number of failures.
int drive(const Problem& p, Guard guard, const std::vector<std::string>& wanted, int more) {
  int failures = 0;
  const auto report = [&](int pass, const std::string& algorithm, const std::string& what) {
    std::printf("pass %d with '%s': %s; sizes", pass, algorithm.c_str(), what.c_str());
    for (int i = 0; i < 16; ++i) std::printf(" %lld", static_cast<long long>(sizes_of(p)[i]));
    std::printf("\n");
    ++failures;
  };
  Tensors t(p, guard);
  double exact = 0;
  bool have_exact = false;
  for (int pass = 0; pass < kPasses; ++pass) {
    const bool has_bias = pass == 0 && guard == Guard::kAfter;
    for (const std::string& algorithm : algorithms(p, pass, wanted, more)) {
      ++calls;
      const float* const a = pass == 1 ? t.dy : t.x;
      const float* const b = pass == 2 ? t.dy : t.w;
      float* const out = pass == 0 ? t.y : pass == 1 ? t.dx : t.dw;
      const float* const other = pass == 0 ? t.dy : pass == 1 ? t.x : t.w;
      const int64_t count = pass == 0 ? t.y_count : pass == 1 ? t.x_count : t.w_count;
      std::fill(out, out + count, std::nanf(""));
      const char* const error = fft_conv_run(sizes_of(p), pass, algorithm.c_str(), a, b,
                                             has_bias ? t.bias : nullptr, out);
      if (error != nullptr) {
        report(pass, algorithm, error);
        continue;
      }
      double inner = dot(out, other, count);
      if (has_bias) {
        const int64_t plane = p.out_height() * p.out_width();
        for (int64_t i = 0; i < count; ++i) inner -= t.dy[i] * t.bias[i / plane % p.out_channels];
      }
      if (!have_exact) exact = inner;
      have_exact = true;
      const double scale = norm(out, count) * norm(other, count) + 1;
      if (!(std::abs(inner - exact) <= 2e-5 * scale))
        report(pass, algorithm, "not adjoint, or NaN");
    }
  }
  return failures;
}

Problem random_problem() {
  Problem p;
  const int64_t groups[] = {1, 1, 2, 3, 7}, steps[] = {1, 1, 2, 3};
  const auto step = [&] { return steps[random_in(0, 3)]; };
  p.batch = random_in(1, 3);
  p.groups = groups[random_in(0, 4)];
  p.in_channels = p.groups * random_in(1, p.groups > 1 ? 3 : 18);
  p.out_channels = p.groups * random_in(1, p.groups > 1 ? 3 : 18);
  const bool row = random_in(0, 3) == 0;
  p.kernel_height = row ? 1 : random_in(1, 8);
  p.kernel_width = random_in(1, row ? 40 : 8);
  p.stride_y = row ? 1 : step();
  p.stride_x = step();
  p.dilation_y = row ? 1 : step();
  p.dilation_x = step();
  p.pad_top = row ? 0 : random_in(0, 4);
  p.pad_bottom = row ? 0 : random_in(0, 4);
  p.pad_left = random_in(0, 4);
  p.pad_right = random_in(0, 4);
  const auto extent = [](int64_t kernel, int64_t dilation, int64_t pads, int64_t more) {
    return std::max<int64_t>(dilation * (kernel - 1) + 1 - pads, 1) + random_in(0, more);
  };
  p.height = row ? 1 : extent(p.kernel_height, p.dilation_y, p.pad_top + p.pad_bottom, 20);
  p.width = extent(p.kernel_width, p.dilation_x, p.pad_left + p.pad_right, row ? 300 : 20);
  return p;
}

// batch, channels in and out, groups, height, width, kernel, strides, dilations, pads (top, left,
// ...).
const Problem kSpecial[] = {
    {1, 1, 1, 1, 1, 1, 1, 1},                                 // one pixel
    {0, 2, 3, 1, 8, 8, 3, 3},                                 // no image
    {2, 3, 5, 1, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},         // one pixel within padding
    {1, 4, 4, 1, 9, 11, 9, 11},                               // a kernel as large as the image
    {1, 2, 2, 1, 5, 5, 5, 5, 1, 1, 1, 1, 4, 0, 4, 8},         // uneven padding
    {3, 2, 4, 1, 1, 200, 1, 33, 1, 1, 1, 1, 0, 16, 0, 16},    // one dimension
    {1, 17, 33, 1, 20, 20, 7, 7, 5, 4},                       // long strides
    {1, 6, 6, 6, 30, 31, 5, 5, 2, 3, 3, 2, 4, 5, 6, 7},       // depthwise
    {2, 8, 24, 8, 15, 40, 4, 3, 1, 2, 4, 1},                  // three outputs a group
    {1, 3, 3, 1, 6, 6, 2, 2, 4, 4},                           // strides beyond the kernel
    {2, 40, 40, 1, 17, 19, 5, 5, 1, 1, 1, 1, 2, 2, 2, 2},     // several blocks of lanes
    {1, 1, 2, 1, 1, 3000, 1, 700, 1, 1, 1, 1, 0, 350, 0, 9},  // long rows
    {2, 3, 3, 3, 1, 2100, 1, 512, 1, 3, 1, 1, 0, 0, 0, 4},    // long rows, strided
};

}  // namespace
}  // namespace graphscale::fft_conv

// drive_fft_conv [random problems] [largest transform]
int main(int count, char** arguments) {
  using namespace graphscale;
  using namespace graphscale::fft_conv;
  const int problems = count > 1 ? std::atoi(arguments[1]) : 24;
  const int largest = count > 2 ? std::atoi(arguments[2]) : 4096;  // longer rows do the same
  int failures = 0;
  for (const Problem& p : kSpecial) {
    for (const Guard guard : {Guard::kBefore, Guard::kAfter}) failures += drive(p, guard, {}, 3);
  }
  for (int i = 0; i < problems; ++i) {
    const Problem p = random_problem();
    const char* const wrong = fft_conv_check(sizes_of(p));
    if (wrong != nullptr) std::printf("problem %d: %s\n", i, wrong);
    failures += wrong != nullptr ? 1 : drive(p, i % 2 == 0 ? Guard::kBefore : Guard::kAfter, {}, 2);
  }
  for (const int size :
       fft_sizes()) {  // every transform, along both axes where they may be that long
    if (size == 1 || size > largest) continue;
    Problem p;
    p.groups = p.in_channels = p.out_channels = 2;
    p.height = size > kMaxFft ? 1 : size;
    p.width = size;
    p.kernel_height = (p.height + 1) / 2;
    p.kernel_width = size / 2;
    const std::string tile = std::to_string(p.height) + "x" + std::to_string(p.width);
    failures += drive(p, Guard::kAfter, {"dense " + tile, "per_channel " + tile}, 0);
  }
  std::printf("%d lanes: %d calls, %d failures\n", this_machines_engine().lanes, calls, failures);
  return failures == 0 ? 0 : 1;
}
