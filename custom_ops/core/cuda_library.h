// The CUDA kernels are in a library of their own, libgraphscale_cuda.so, next to this one. It is
// opened at the first call for a GPU; where the library or a GPU is missing, there are CPU kernels
// only. This header is the whole interface between the two.
#pragma once

#include <string>
#include <vector>

#include "core/operator.h"

namespace graphscale {

// A kernel of the operator of that name for tensors in GPU memory, on Context::stream. It must not
// synchronise (a CUDA graph may be recording), and Context::allocate gives GPU memory. prepack()
// runs when a session is made, while no CUDA graph is recorded: it may synchronise, and allocates
// memory of its own.
struct CudaKernel {
  const char* name;
  std::vector<Type> types;
  Kernel run;
  PrepackFunction prepack;                  // null where there is nothing to prepack
  AlgorithmsFunction algorithms = nullptr;  // null where there is nothing to choose
};

// The one symbol that libgraphscale_cuda.so exports; it returns null where there is no GPU.
using CudaKernels = const std::vector<CudaKernel>* (*)();
constexpr const char* kCudaKernelsSymbol = "graphscale_cuda_kernels";

const CudaKernel* find_cuda_kernel(const std::string& name, Type type);

// Why there are no CUDA kernels; empty when there are.
const std::string& cuda_library_error();

}  // namespace graphscale
