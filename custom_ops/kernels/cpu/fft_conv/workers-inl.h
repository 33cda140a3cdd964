// Tasks dealt to as many workers as there are threads, each with its own work memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "core/context.h"

namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET {

// body(worker, first, end) for runs of tasks that make up [0, tasks); two runs of one worker are
// never at once. Many tasks are dealt some at a time: the counter that all workers share costs as
// much as a small image.
template <typename Body>
void deal_runs(const Context& context, int64_t tasks, const Body& body) {
  const int64_t workers = tasks < context.threads ? tasks : context.threads;
  const int64_t run = std::clamp<int64_t>(tasks / (32 * std::max<int64_t>(workers, 1)), 1, 16);
  std::atomic<int64_t> next{0};
  parallel_for(context, workers, [&](int64_t worker) {
    for (int64_t first = next.fetch_add(run); first < tasks; first = next.fetch_add(run)) {
      body(worker, first, std::min(first + run, tasks));
    }
  });
}

// body(worker, task) for every task.
template <typename Body>
void deal(const Context& context, int64_t tasks, const Body& body) {
  deal_runs(context, tasks, [&](int64_t worker, int64_t first, int64_t end) {
    for (int64_t task = first; task < end; ++task) body(worker, task);
  });
}

}  // namespace graphscale::fft_conv::GRAPHSCALE_INSTRUCTION_SET
