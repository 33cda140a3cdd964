// GPU memory that outlives a call: prepacked constant weights, which live as long as their session.
#pragma once

#include <cstdlib>

#include "kernels/cuda/launch.h"

namespace graphscale::cuda {

class SessionMemory {
 public:
  // Null where none is left.
  static SessionMemory* allocate(size_t bytes) {
    void* memory = nullptr;
#ifdef __CUDACC__
    if (cudaMalloc(&memory, bytes) != cudaSuccess) {
      cudaGetLastError();  // clears the error, which the next kernel would report
      return nullptr;
    }
#else
    memory = std::malloc(bytes);
#endif
    return new SessionMemory(memory);
  }
  ~SessionMemory() {
#ifdef __CUDACC__
    cudaFree(memory_);
#else
    std::free(memory_);
#endif
  }
  SessionMemory(const SessionMemory&) = delete;
  SessionMemory& operator=(const SessionMemory&) = delete;
  void* get() const { return memory_; }

 private:
  explicit SessionMemory(void* memory) : memory_(memory) {}
  void* memory_;
};

// Whether a CUDA graph records the stream's work: then a call may not allocate memory or wait.
inline bool is_recording(const Context& context) {
#ifdef __CUDACC__
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(static_cast<cudaStream_t>(context.stream), &status),
        "asking the stream");
  return status != cudaStreamCaptureStatusNone;
#else
  static_cast<void>(context);
  return false;
#endif
}

// Waits until the stream has finished all its work.
inline void wait_for(const Context& context) {
#ifdef __CUDACC__
  check(cudaStreamSynchronize(static_cast<cudaStream_t>(context.stream)), "waiting for the GPU");
#else
  static_cast<void>(context);
#endif
}

}  // namespace graphscale::cuda
