// core/context.h filled from an onnxruntime session: its thread pool, its allocators, its stream.
#pragma once

#include "onnxruntime/api.h"

namespace graphscale::onnxruntime {

enum class Device { kCpu, kCuda };

// The execution provider's own memory for a node, CPU's or the session's GPU's, whatever its name.
class NodeMemory {
 public:
  explicit NodeMemory(const OrtKernelInfo* info);
  ~NodeMemory();
  NodeMemory(const NodeMemory&) = delete;
  NodeMemory& operator=(const NodeMemory&) = delete;

  // On the stream of this call; null when none is left.
  void* allocate(const OrtKernelContext* session, size_t bytes) const;
  void release(void* memory) const;

 private:
  OrtAllocator* allocator_ = nullptr;
  const OrtMemoryInfo* place_ = nullptr;  // the allocator's
};

// For one call of Compute.
class NodeContext {
 public:
  NodeContext(OrtKernelContext* session, Device device, const NodeMemory& memory);
  NodeContext(const NodeContext&) = delete;
  NodeContext& operator=(const NodeContext&) = delete;

  const Context& get() const { return context_; }

 private:
  OrtKernelContext* session_;
  const NodeMemory& memory_;
  Context context_;
};

// Plain memory and the caller's thread: what is prepacked when a session is made.
Context session_context();

}  // namespace graphscale::onnxruntime
