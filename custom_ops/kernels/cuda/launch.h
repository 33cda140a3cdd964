// Starts kernels: on the context's stream where this is CUDA, in emulation.h's blocks elsewhere.
// Nothing here waits for the GPU, so that a CUDA graph can record every call.
#pragma once

#include <algorithm>
#include <string>
#include <type_traits>

#include "core/operator.h"
#include "kernels/cuda/device.h"

namespace graphscale::cuda {

#ifdef __CUDACC__

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail(std::string(what) + ": " + cudaGetErrorString(error));
}

constexpr int kIndexThreads = 256;
constexpr int64_t kIndexBlocks =
    132 * 16;  // enough to fill the largest GPU; each block takes several indices

template <typename Body>
__global__ void __launch_bounds__(kIndexThreads) run_indices(int64_t count, const Body body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kIndexThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kIndexThreads + threadIdx.x; i < count;
       i += step) {
    body(i);
  }
}

// Blocks that a multiprocessor should hold at once: Body::kBlocks where a kernel says so, and the
// compiler finds registers accordingly.
template <typename Body, typename = void>
constexpr int kBlocksAtOnce = 0;  // as many as there are registers for
template <typename Body>
constexpr int kBlocksAtOnce<Body, std::void_t<decltype(Body::kBlocks)>> = Body::kBlocks;

template <typename Body>
__global__ void __launch_bounds__(Body::kThreads, kBlocksAtOnce<Body>) run_blocks(const Body body) {
  Block block;
  body(block);
}

// body(index) for every index in [0, count).
template <typename Body>
void for_each_index(const Context& context, int64_t count, const Body& body) {
  if (count <= 0) return;
  const int64_t blocks = std::min(divide_up(count, kIndexThreads), kIndexBlocks);
  run_indices<<<static_cast<unsigned>(blocks), kIndexThreads, 0,
                static_cast<cudaStream_t>(context.stream)>>>(count, body);
  check(cudaGetLastError(), "starting a kernel");
}

// body(block) for `blocks` blocks of Body::kThreads threads that share `shared_bytes` of memory.
template <typename Body>
void launch_blocks(const Context& context, int64_t blocks, size_t shared_bytes, const Body& body) {
  if (blocks <= 0) return;
  if (blocks > 0x7fffffff) fail("the tensors are too large for one kernel; split the batch");
  if (shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(run_blocks<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          "asking for shared memory");
  }
  run_blocks<<<static_cast<unsigned>(blocks), Body::kThreads, shared_bytes,
               static_cast<cudaStream_t>(context.stream)>>>(body);
  check(cudaGetLastError(), "starting a kernel");
}

#else

template <typename Body>
void for_each_index(const Context&, int64_t count, const Body& body) {
  const bool reversed = emulate_reversed();
  for (int64_t i = 0; i < count; ++i) body(reversed ? count - 1 - i : i);
}

template <typename Body>
void launch_blocks(const Context&, int64_t blocks, size_t shared_bytes, const Body& body) {
  static_assert(Body::kThreads <= kMaxThreads);
  if (blocks <= 0) return;
  if (shared_bytes > kMaxSharedBytes) fail("asking for shared memory: more than there is");
  BlockEmulator emulator(Body::kThreads, shared_bytes);
  const bool reversed = emulate_reversed();
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t index = reversed ? blocks - 1 - i : i;
    emulator.run([&](int thread) {
      Block block(emulator, index, thread);
      body(block);
    });
  }
}

#endif

// memory[i] = 0 for all i.
template <typename T>
struct Clear {
  T* memory;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const { memory[i] = narrow<T>(0); }
};

template <typename T>
void clear(const Context& context, T* memory, int64_t count) {
  for_each_index(context, count, Clear<T>{memory});
}

}  // namespace graphscale::cuda
