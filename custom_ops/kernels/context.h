// What a kernel may ask of its caller: threads, scratch memory and, on a GPU, a stream.
// The onnxruntime glue fills it from the session (its thread pool, its allocators, its stream), the
// Python glue from torch. Kernels know nothing else of either.
#pragma once

#include <cstddef>
#include <cstdint>

namespace graphscale {

struct Context {
  // Run body(argument, task) for every task in [0, tasks), in any order, on any thread; returns when
  // all are done. Tasks must not throw.
  void (*run_tasks)(void* owner, int64_t tasks, void (*body)(void* argument, int64_t task), void* argument);
  // Scratch memory, aligned to 64 bytes; null when there is none left.
  void* (*allocate)(void* owner, size_t bytes);
  void (*release)(void* owner, void* memory);
  void* owner;    // handed back to the functions above
  int threads;    // how many tasks run at once; at least 1
  void* stream;   // cudaStream_t of the CUDA kernels; null on a CPU
};

// parallel_for with any callable: parallel_for(context, n, [&](int64_t i) { ... });
template <typename Body>
void parallel_for(const Context& context, int64_t tasks, const Body& body) {
  if (tasks == 1 || context.threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  context.run_tasks(
      context.owner, tasks,
      [](void* argument, int64_t task) { (*static_cast<const Body*>(argument))(task); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Scratch memory that is given back at the end of its scope. get() is null when none was left.
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
