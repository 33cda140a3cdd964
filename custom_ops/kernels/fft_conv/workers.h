// Tasks dealt to as many workers as there are threads, each with its own work memory.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels/context.h"

namespace graphscale::fft_conv {

// body(worker, task) for every task; two tasks of one worker never run at once.
template <typename Body>
void deal(const Context& context, int64_t tasks, const Body& body) {
  const int64_t workers = tasks < context.threads ? tasks : context.threads;
  std::atomic<int64_t> next{0};
  parallel_for(context, workers, [&](int64_t worker) {
    for (int64_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) {
      body(worker, task);
    }
  });
}

}  // namespace graphscale::fft_conv
