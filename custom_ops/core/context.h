// What a kernel gets from its caller: threads, scratch memory and, on a GPU, a stream. onnxruntime/
// fills it from a session (thread pool, allocators, stream), torch/ from a call of the C API;
// kernels know nothing else of the two.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>

namespace graphscale {

struct Context {
  // Run body(argument, task) for every task in [0, tasks), in any order, on any thread; returns
  // when all are done. Tasks must not throw (those of parallel_for may).
  void (*run_tasks)(void* owner, int64_t tasks, void (*body)(void* argument, int64_t task),
                    void* argument);
  // Scratch memory, aligned to 64 bytes; null where none is left. May be called from any thread.
  void* (*allocate)(void* owner, size_t bytes);
  void (*release)(void* owner, void* memory);
  void* owner;   // passed to the functions above
  int threads;   // how many tasks run at once; at least 1
  void* stream;  // cudaStream_t of the CUDA kernels; null on a CPU
};

// A context with the same memory and one thread, for calls from inside a task.
inline Context one_thread(const Context& context) {
  Context copy = context;
  copy.threads = 1;
  return copy;
}

// parallel_for with any callable: parallel_for(context, n, [&](int64_t i) { ... });
// The first exception that a task throws is thrown again when all tasks are done.
template <typename Body>
void parallel_for(const Context& context, int64_t tasks, const Body& body) {
  if (tasks == 1 || context.threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  struct Work {
    const Body& body;
    std::atomic<bool> failed{false};
    std::exception_ptr reason;
  } work{body, {}, {}};
  context.run_tasks(
      context.owner, tasks,
      [](void* argument, int64_t task) {
        Work& work = *static_cast<Work*>(argument);
        try {
          work.body(task);
        } catch (...) {
          if (!work.failed.exchange(true)) work.reason = std::current_exception();
        }
      },
      &work);
  if (work.reason) std::rethrow_exception(work.reason);
}

// parallel_for over [0, count) in pieces of at least `grain`: body(begin, end).
template <typename Body>
void parallel_ranges(const Context& context, int64_t count, int64_t grain, const Body& body) {
  if (count <= 0) return;
  // Four pieces per thread, so that the other threads can take over those of a delayed one.
  const int64_t max_pieces = static_cast<int64_t>(context.threads) * 4;
  const int64_t pieces =
      count / grain < max_pieces ? (count / grain > 1 ? count / grain : 1) : max_pieces;
  parallel_for(context, pieces,
               [&](int64_t piece) { body(count * piece / pieces, count * (piece + 1) / pieces); });
}

// Scratch memory that is released at the end of its scope. get() is null where none was left.
class Scratch {
 public:
  Scratch(const Context& context, size_t bytes)
      : context_(context), memory_(context.allocate(context.owner, bytes)) {}
  ~Scratch() {
    if (memory_ != nullptr) context_.release(context_.owner, memory_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <typename T>
  T* get() const {
    return static_cast<T*>(memory_);
  }

 private:
  const Context& context_;
  void* memory_;
};

}  // namespace graphscale
