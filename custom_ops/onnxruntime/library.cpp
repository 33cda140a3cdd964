// RegisterCustomOps, the function that SessionOptions.register_custom_ops_library calls.
#include <memory>
#include <mutex>
#include <vector>

#include "core/cuda_library.h"
#include "onnxruntime/custom_op.h"

namespace graphscale::onnxruntime {
namespace {

// One domain object for all sessions; it lives as long as the process, as sessions may.
struct Library {
  OrtCustomOpDomain* domain = nullptr;
  std::vector<std::unique_ptr<CustomOp>> ops;

  Library() {
    check(api->CreateCustomOpDomain("graphscale", &domain));
    for (const Operator& op : operators()) {
      for (const Type type : op.variable_types) {
        add(op, type, Device::kCpu, op.cpu_kernel, op.prepack_function);
        if (const CudaKernel* kernel = find_cuda_kernel(op.name, type)) {
          add(op, type, Device::kCuda, kernel->run, kernel->prepack);
        }
      }
    }
  }

  void add(const Operator& op, Type type, Device device, Kernel kernel, PrepackFunction prepack) {
    ops.push_back(std::make_unique<CustomOp>(op, type, device, kernel, prepack));
    check(api->CustomOpDomain_Add(domain, ops.back().get()));
  }
};

}  // namespace
}  // namespace graphscale::onnxruntime

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace graphscale::onnxruntime;
  const OrtApi* found = base->GetApi(kApiVersion);
  if (found == nullptr) {
    const std::string message =
        std::string("graphscale needs onnxruntime 1.24 or newer; this is ") +
        base->GetVersionString() + "; upgrade it";
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  api = found;
  return guarded("graphscale: ", [&] {
    static Library* const library = new Library();
    check(api->AddCustomOpDomain(options, library->domain));
  });
}
