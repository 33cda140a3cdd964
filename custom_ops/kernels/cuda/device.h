// The functions that kernels may use. The same source compiles as CUDA (nvcc) and as plain C++ (any
// other compiler). As C++, emulation.h runs one block after another on the host, so that a machine
// without a GPU tests the same code that a GPU runs.
//
// A kernel is a struct of its parameters. Either operator()(int64_t index) runs for every index of
// a range (for_each_index), or operator()(Block&) in all threads of every block (launch_blocks).
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/tensor.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define GRAPHSCALE_DEVICE __device__ __forceinline__
#define GRAPHSCALE_BOTH __host__ __device__ __forceinline__
#else
#define GRAPHSCALE_DEVICE inline
#define GRAPHSCALE_BOTH inline
#endif

namespace graphscale::cuda {

constexpr int kWarp = 32;

// 16-bit floats are storage only, as on the CPU.
GRAPHSCALE_DEVICE float widen(float value) { return value; }
GRAPHSCALE_DEVICE double widen(double value) { return value; }
template <typename T>
GRAPHSCALE_DEVICE T narrow(typename Accumulator<T>::type value) {
  return value;
}

#ifdef __CUDACC__

GRAPHSCALE_DEVICE float widen(Float16 value) { return __half2float(__ushort_as_half(value.bits)); }
GRAPHSCALE_DEVICE float widen(BFloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
template <>
GRAPHSCALE_DEVICE Float16 narrow<Float16>(float value) {
  Float16 result;
  result.bits = __half_as_ushort(__float2half_rn(value));
  return result;
}
template <>
GRAPHSCALE_DEVICE BFloat16 narrow<BFloat16>(float value) {
  BFloat16 result;
  result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
  return result;
}

// The nearest number with 10 bits of fraction, as tensor cores read a float.
GRAPHSCALE_DEVICE uint32_t to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}
GRAPHSCALE_DEVICE float from_bits(uint32_t bits) { return __uint_as_float(bits); }
GRAPHSCALE_DEVICE int count_bits(uint32_t bits) { return __popc(bits); }

extern __shared__ __align__(16) unsigned char block_memory[];

// The block that a thread belongs to.
class Block {
 public:
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int64_t index() const { return blockIdx.x; }
  template <typename T>
  __device__ T* shared() const {
    return reinterpret_cast<T*>(block_memory);
  }
  // Waits for all threads of the block; what they wrote to shared memory before is visible after.
  __device__ void sync() const { __syncthreads(); }
  // Of all 32 threads of a warp:
  __device__ uint32_t ballot(bool vote) const { return __ballot_sync(0xffffffffu, vote); }
  template <typename T>
  __device__ T shuffle_xor(T value, int mask) const {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
  // Four matrices of 8 x 4 numbers: lane i of 32 gives the address of row i % 8 of matrix i / 8, in
  // shared memory and aligned to 16 bytes, and gets number i % 4 of row i / 4 of each.
  __device__ void load_matrices(const uint32_t* row, uint32_t (&to)[4]) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
                 : "memory");
  }
  // sum (16 x 8) += a (16 x 8) b (8 x 8), in the fragments of PTX mma.m16n8k8 for tf32.
  __device__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4],
                               const uint32_t (&b)[2]) const {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
  // sum (16 x 8) += a (16 x 16) b (16 x 8), in the fragments of PTX mma.m16n8k16 for float16, two
  // numbers to a word.
  __device__ void multiply_add_halves(float (&sum)[4], const uint32_t (&a)[4],
                                      const uint32_t (&b)[2]) const {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
};

#else

inline float widen(Float16 value) { return static_cast<float>(value); }
inline float widen(BFloat16 value) { return static_cast<float>(value); }
template <>
inline Float16 narrow<Float16>(float value) {
  return Float16(value);
}
template <>
inline BFloat16 narrow<BFloat16>(float value) {
  return BFloat16(value);
}
inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t to_tf32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return (bits & 0x7fffffffu) >= 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}
inline int count_bits(uint32_t bits) { return __builtin_popcount(bits); }

#endif

template <typename T>
GRAPHSCALE_BOTH T min(T left, T right) {
  return right < left ? right : left;
}
template <typename T>
GRAPHSCALE_BOTH T max(T left, T right) {
  return left < right ? right : left;
}

GRAPHSCALE_BOTH int64_t divide_up(int64_t count, int64_t size) { return (count + size - 1) / size; }

// The sum of a value over a block, the same in every thread. `room`: one value per warp, in shared
// memory that is not used otherwise meanwhile.
template <int kThreads, typename Block, typename T>
GRAPHSCALE_DEVICE T sum_over_block(const Block& block, T value, T* room) {
  static_assert(kThreads % kWarp == 0, "whole warps");
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += block.shuffle_xor(value, mask);
  if (block.thread() % kWarp == 0) room[block.thread() / kWarp] = value;
  block.sync();
  T sum = room[0];
  for (int warp = 1; warp < kThreads / kWarp; ++warp) sum += room[warp];
  block.sync();
  return sum;
}

// The maximum of a value over a block, likewise.
template <int kThreads, typename Block, typename T>
GRAPHSCALE_DEVICE T max_over_block(const Block& block, T value, T* room) {
  static_assert(kThreads % kWarp == 0, "whole warps");
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    value = max(value, block.shuffle_xor(value, mask));
  }
  if (block.thread() % kWarp == 0) room[block.thread() / kWarp] = value;
  block.sync();
  T result = room[0];
  for (int warp = 1; warp < kThreads / kWarp; ++warp) result = max(result, room[warp]);
  block.sync();
  return result;
}

}  // namespace graphscale::cuda

#ifndef __CUDACC__
#include "kernels/cuda/emulation/emulation.h"
#endif
