// A process forks while its threads compute; each child must compute, too, and not wait for a lock
// that a thread of its parent held. Sizes are ever new, so that the threads take every lock: for
// scratch memory, prepacked weights, chosen algorithms and transforms' tables.
//
// drive_forks [FORKS]
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "torch/c_api.h"

namespace {

constexpr int kThreads = 4;
constexpr unsigned kSeconds = 60;  // after which a child hangs

// Runs FFTConv twice, so that its weights are prepacked; the size follows from `number`.
bool convolve(int64_t number, int threads) {
  const int64_t channels = 1 + number % 3, taps = 3 + number % 4, size = 9 + number % 41;
  const int64_t out = size - taps + 1;
  std::vector<float> x(static_cast<size_t>(channels * size * size), 1.0f);
  const std::vector<float> weight(static_cast<size_t>(channels * channels * taps * taps), 1.0f);
  std::vector<float> y(static_cast<size_t>(channels * out * out));
  const auto address = [](const auto& tensor) { return reinterpret_cast<intptr_t>(tensor.data()); };
  const int64_t tensors[] = {
      address(x), 1,        4,    1,    channels, size, size, address(weight), 1, 4,
      channels,   channels, taps, taps, 0,        0,    0,  // no bias
      address(y), 1,        4,    1,    channels, out,  out};
  const GraphScalePlace place{0, threads, nullptr, nullptr, nullptr};
  char error[256] = "";
  for (int i = 0; i < 2; ++i) {
    if (graphscale_run("FFTConv", tensors, 3, 1, nullptr, 0, &place, error, sizeof(error)) != 0) {
      return false;
    }
  }
  const float wanted = static_cast<float>(channels * taps * taps);
  for (const float each : y) {
    if (each < wanted - 0.01f || each > wanted + 0.01f) return false;
  }
  return true;
}

// Forks while the threads compute; returns how many children did not end well.
int failed_children(int forks) {
  int failures = 0;
  for (int i = 0; i < forks; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(kSeconds);
      _exit(convolve(1000 + i, 2) ? 0 : 1);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
      const bool hung = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
      std::fprintf(stderr, "child %d %s\n", i, hung ? "hung" : "failed");
      ++failures;
    }
  }
  return failures;
}

}  // namespace

int main(int count, char** arguments) {
  const int forks = count > 1 ? std::atoi(arguments[1]) : 100;
  std::atomic<bool> ended{false};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int64_t number = thread; !ended; number += kThreads) {
        if (!convolve(number, 1 + thread % 3)) ++failures;
      }
    });
  }
  failures += failed_children(forks);
  ended = true;
  for (std::thread& thread : threads) thread.join();
  std::printf("%d forks, %d failures\n", forks, failures.load());
  return failures == 0 ? 0 : 1;
}
