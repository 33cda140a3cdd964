// A C interface to kernels/cpu/fft_conv: any pass with any algorithm. Functions return null or what
// went wrong.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "core/operator.h"
#include "kernels/cpu/fft_conv/fft_conv.h"

using namespace graphscale;
using namespace graphscale::fft_conv;

namespace {

// Tasks on two threads; memory filled with NaN, so that reads of unwritten memory show.
Context test_context(std::atomic<size_t>* taken) {
  Context context;
  context.run_tasks = [](void*, int64_t tasks, void (*body)(void*, int64_t), void* argument) {
    std::atomic<int64_t> next{0};
    const auto work = [&] {
      for (int64_t task = next++; task < tasks; task = next++) body(argument, task);
    };
    std::thread other(work);
    work();
    other.join();
  };
  context.allocate = [](void* owner, size_t bytes) -> void* {
    auto& taken = *static_cast<std::atomic<size_t>*>(owner);
    taken += bytes;
    const size_t rounded = (bytes + 63) / 64 * 64;
    auto* const memory = static_cast<unsigned char*>(std::aligned_alloc(64, rounded));
    std::fill(memory, memory + rounded, static_cast<unsigned char>(0xff));
    return memory;
  };
  context.release = [](void*, void* memory) { std::free(memory); };
  context.owner = taken;
  context.threads = 2;
  context.stream = nullptr;
  return context;
}

Problem problem_of(const int64_t* v) {
  return {v[0], v[1], v[2],  v[3],  v[4],  v[5],  v[6],  v[7],
          v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]};
}

thread_local std::string text;

template <typename Body>
const char* guarded(const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    text = error.what();
    return text.c_str();
  }
}

}  // namespace

extern "C" {

const char* fft_conv_check(const int64_t* sizes) {
  return guarded([&] { check(problem_of(sizes)); });
}

int fft_conv_supports(const int64_t* sizes, int pass, const char* algorithm) {
  return supports(problem_of(sizes), static_cast<Pass>(pass), parse_algorithm(algorithm).value())
             ? 1
             : 0;
}

// Algorithms, cheapest first, separated by ';'.
const char* fft_conv_candidates(const int64_t* sizes, int pass, int threads) {
  text.clear();
  for (const Algorithm& algorithm :
       candidates(problem_of(sizes), static_cast<Pass>(pass), threads)) {
    text += (text.empty() ? "" : ";") + to_string(algorithm);
  }
  return text.c_str();
}

double fft_conv_seconds(const int64_t* sizes, int pass, const char* algorithm, int threads) {
  return predicted_seconds(problem_of(sizes), static_cast<Pass>(pass),
                           parse_algorithm(algorithm).value(), threads);
}

// The pass of an algorithm: a and b are x and w, dy and w, or x and dy; out y, dx or dw.
const char* fft_conv_run(const int64_t* sizes, int pass_number, const char* algorithm_text,
                         const float* a, const float* b, const float* bias, float* out) {
  return guarded([&] {
    const Problem p = problem_of(sizes);
    const auto pass = static_cast<Pass>(pass_number);
    const Algorithm algorithm = parse_algorithm(algorithm_text).value();
    std::atomic<size_t> taken{0};
    const Context context = test_context(&taken);
    bool done = true;
    if (pass == Pass::kGradientWeight) {
      done = gradient_weight(p, algorithm, a, b, out, context);
    } else {
      const size_t bytes = prepacked_bytes(p, pass, algorithm);
      const Scratch prepacked(context, std::max<size_t>(bytes, 64));
      done = prepack(p, pass, algorithm, b, prepacked.get<void>(), context);
      taken = 0;
      if (pass == Pass::kForward) {
        done = done && forward(p, algorithm, a, prepacked.get<void>(), bias, out, context);
      } else {
        done = done && gradient_input(p, algorithm, a, prepacked.get<void>(), out, context);
      }
    }
    if (taken > scratch_bytes(p, pass, algorithm, context.threads))
      fail("more scratch than announced");
    if (!done) fail("numbers too far apart");
  });
}
}
