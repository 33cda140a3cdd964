// A session's threads, scratch memory and GPU stream behind the functions of core/context.h.
#include "onnxruntime/node_context.h"

#include <cstdlib>
#include <thread>

namespace graphscale::onnxruntime {
namespace {

// onnxruntime does not tell the size of its thread pool; work is divided for all processors.
int thread_count() {
  static const int count = static_cast<int>(std::thread::hardware_concurrency());
  return count > 1 ? count : 1;
}

struct Work {
  void (*body)(void*, int64_t);
  void* argument;
};

void run_in_session(void* owner, int64_t tasks, void (*body)(void*, int64_t), void* argument) {
  Work work{body, argument};
  const auto run = [](void* data, size_t task) {
    const Work& work = *static_cast<Work*>(data);
    work.body(work.argument, static_cast<int64_t>(task));
  };
  const auto session = static_cast<const OrtKernelContext*>(owner);
  check(api->KernelContext_ParallelFor(session, run, static_cast<size_t>(tasks), 0, &work));
}

}  // namespace

NodeMemory::NodeMemory(const OrtKernelInfo* info) {
  check(api->KernelInfoGetAllocator(info, OrtMemTypeDefault, &allocator_));
  check(api->AllocatorGetInfo(allocator_, &place_));
}

NodeMemory::~NodeMemory() { api->ReleaseAllocator(allocator_); }

// The caller must free the memory of GetScratchBuffer, by the allocator it came from.
void* NodeMemory::allocate(const OrtKernelContext* session, size_t bytes) const {
  void* memory = nullptr;
  if (!succeeded(api->KernelContext_GetScratchBuffer(session, place_, bytes, &memory))) {
    return nullptr;
  }
  return memory;
}

void NodeMemory::release(void* memory) const { succeeded(api->AllocatorFree(allocator_, memory)); }

NodeContext::NodeContext(OrtKernelContext* session, Device device, const NodeMemory& memory)
    : session_(session), memory_(memory) {
  context_.allocate = [](void* owner, size_t bytes) {
    const auto* const self = static_cast<NodeContext*>(owner);
    return self->memory_.allocate(self->session_, bytes);
  };
  context_.release = [](void* owner, void* memory) {
    static_cast<NodeContext*>(owner)->memory_.release(memory);
  };
  context_.run_tasks = [](void* owner, int64_t tasks, void (*body)(void*, int64_t),
                          void* argument) {
    run_in_session(static_cast<NodeContext*>(owner)->session_, tasks, body, argument);
  };
  context_.owner = this;
  context_.threads = thread_count();
  context_.stream = nullptr;
  if (device == Device::kCuda) {
    check(api->KernelContext_GetGPUComputeStream(session, &context_.stream));
  }
}

Context session_context() {
  Context context;
  context.run_tasks = [](void*, int64_t tasks, void (*body)(void*, int64_t), void* argument) {
    for (int64_t task = 0; task < tasks; ++task) body(argument, task);
  };
  context.allocate = [](void*, size_t bytes) {
    return std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  };
  context.release = [](void*, void* memory) { std::free(memory); };
  context.owner = nullptr;
  context.threads = thread_count();  // the same algorithms are chosen as in later runs
  context.stream = nullptr;
  return context;
}

}  // namespace graphscale::onnxruntime
