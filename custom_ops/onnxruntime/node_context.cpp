#include "onnxruntime/node_context.h"

#include <cstdlib>
#include <mutex>
#include <thread>

namespace graphscale::onnxruntime {
namespace {

// onnxruntime does not tell how many threads its pool has; the work is cut for all processors.
int thread_count() {
  static const int count = static_cast<int>(std::thread::hardware_concurrency());
  return count > 1 ? count : 1;
}

struct Work {
  void (*body)(void*, int64_t);
  void* argument;
};

void run_in_session(void* owner, int64_t tasks, void (*body)(void*, int64_t), void* argument);

// The GPU of the session: every operator has a first input, and it lies there.
OrtStatus* find_gpu(const OrtKernelContext* session, int* id) {
  const OrtValue* value = nullptr;
  const OrtMemoryInfo* place = nullptr;
  OrtStatus* status = api->KernelContext_GetInput(session, 0, &value);
  if (status == nullptr) status = api->GetTensorMemoryInfo(value, &place);
  if (status == nullptr) status = api->MemoryInfoGetId(place, id);
  return status;
}

OrtStatus* find_memory(const OrtKernelContext* session, Device device, OrtMemoryInfo** place) {
  if (device == Device::kCpu) {
    return api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, place);
  }
  int gpu = 0;
  OrtStatus* const status = find_gpu(session, &gpu);
  if (status != nullptr) return status;
  return api->CreateMemoryInfo("Cuda", OrtDeviceAllocator, gpu, OrtMemTypeDefault, place);
}

}  // namespace

NodeContext::NodeContext(OrtKernelContext* session, Device device)
    : session_(session), device_(device) {
  context_.allocate = [](void* owner, size_t bytes) {
    return static_cast<NodeContext*>(owner)->allocate(bytes);
  };
  context_.release = [](void* owner, void* memory) {
    static_cast<NodeContext*>(owner)->release(memory);
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

NodeContext::~NodeContext() {
  if (allocator_ != nullptr) api->ReleaseAllocator(allocator_);
  if (place_ != nullptr) api->ReleaseMemoryInfo(place_);
}

// GetScratchBuffer leaves its memory to the caller: it goes back to the allocator of the same place.
void* NodeContext::allocate(size_t bytes) {
  if (place_ == nullptr && !succeeded(find_memory(session_, device_, &place_))) return nullptr;
  if (allocator_ == nullptr &&
      !succeeded(api->KernelContext_GetAllocator(session_, place_, &allocator_))) {
    return nullptr;
  }
  void* memory = nullptr;
  if (!succeeded(api->KernelContext_GetScratchBuffer(session_, place_, bytes, &memory))) {
    return nullptr;
  }
  return memory;
}

void NodeContext::release(void* memory) { succeeded(api->AllocatorFree(allocator_, memory)); }

namespace {

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

Context session_context() {
  Context context;
  context.run_tasks = [](void*, int64_t tasks, void (*body)(void*, int64_t), void* argument) {
    for (int64_t task = 0; task < tasks; ++task) body(argument, task);
  };
  context.allocate = [](void*, size_t bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); };
  context.release = [](void*, void* memory) { std::free(memory); };
  context.owner = nullptr;
  context.threads = thread_count();  // plans are chosen as they will be for runs
  context.stream = nullptr;
  return context;
}

}  // namespace graphscale::onnxruntime
