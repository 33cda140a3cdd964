// kernels/context.h filled from an onnxruntime session: its thread pool, its allocators, its stream.
#pragma once

#include "onnxruntime/api.h"

namespace graphscale::onnxruntime {

enum class Device { kCpu, kCuda };

// For one call of Compute.
class NodeContext {
 public:
  NodeContext(OrtKernelContext* session, Device device);
  ~NodeContext();
  NodeContext(const NodeContext&) = delete;
  NodeContext& operator=(const NodeContext&) = delete;

  const Context& get() const { return context_; }

 private:
  void* allocate(size_t bytes);
  void release(void* memory);

  OrtKernelContext* session_;
  OrtMemoryInfo* place_ = nullptr;     // made when scratch memory is first asked for
  OrtAllocator* allocator_ = nullptr;
  Device device_;
  Context context_;
};

// Plain memory and the caller's thread: what is prepared when a session is made.
Context session_context();

}  // namespace graphscale::onnxruntime
