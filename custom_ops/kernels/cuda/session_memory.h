// GPU memory that outlives a call: what was made of constant weights, for as long as a session
// lives.
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
      cudaGetLastError();  // it is not an error of the next kernel
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

// Whether a CUDA graph records what the stream is given: nothing may be allocated or waited for
// then.
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

// Until the stream has done all it was given.
inline void wait_for(const Context& context) {
#ifdef __CUDACC__
  check(cudaStreamSynchronize(static_cast<cudaStream_t>(context.stream)), "waiting for the GPU");
#else
  static_cast<void>(context);
#endif
}

}  // namespace graphscale::cuda
