// Opens libgraphscale_cuda.so next to this library when CUDA kernels are first asked for.
#include "core/cuda_library.h"

#include <dlfcn.h>

#include <algorithm>

namespace graphscale {
namespace {

struct CudaLibrary {
  const std::vector<CudaKernel>* kernels = nullptr;
  std::string error;

  CudaLibrary() {
    Dl_info here;
    if (dladdr(reinterpret_cast<void*>(&find_cuda_kernel), &here) == 0) {
      error = "the folder of libgraphscale.so is unknown";
      return;
    }
    const std::string path(here.dli_fname);
    const std::string folder = path.substr(0, path.find_last_of('/') + 1);
    void* library = dlopen((folder + "libgraphscale_cuda.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    void* symbol = library == nullptr ? nullptr : dlsym(library, kCudaKernelsSymbol);
    if (symbol == nullptr) {
      error = dlerror();
      return;
    }
    kernels = reinterpret_cast<CudaKernels>(symbol)();
    if (kernels == nullptr) error = "there is no NVIDIA GPU, or its driver is missing";
  }
};

const CudaLibrary& library() {
  static const CudaLibrary* const opened = new CudaLibrary();
  return *opened;
}

}  // namespace

const CudaKernel* find_cuda_kernel(const std::string& name, Type type) {
  if (library().kernels == nullptr) return nullptr;
  for (const CudaKernel& kernel : *library().kernels) {
    if (name == kernel.name &&
        std::find(kernel.types.begin(), kernel.types.end(), type) != kernel.types.end()) {
      return &kernel;
    }
  }
  return nullptr;
}

const std::string& cuda_library_error() { return library().error; }

}  // namespace graphscale
