// A safe form of the few functions of onnxruntime's C API that are used here: failed calls become
// exceptions, exceptions become statuses, and handles are released at the end of their scope.
#pragma once

#include <onnxruntime_c_api.h>

#include <exception>
#include <memory>
#include <string>

#include "core/operator.h"

namespace graphscale::onnxruntime {

// The lowest version of the API that has all functions used here (scratch memory came with 1.18).
constexpr uint32_t kApiVersion = 18;

inline const OrtApi* api = nullptr;  // set once by RegisterCustomOps

// True when the call succeeded; the status is given back either way.
inline bool succeeded(OrtStatus* status) {
  if (status == nullptr) return true;
  api->ReleaseStatus(status);
  return false;
}

inline void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  fail(message);
}

// body() with its exceptions as a status, each message preceded by `subject`.
template <typename Body>
OrtStatus* guarded(const std::string& subject, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Error& error) {
    return api->CreateStatus(ORT_INVALID_ARGUMENT, (subject + error.what()).c_str());
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, (subject + error.what()).c_str());
  }
}

struct ReleaseShapeInfo {
  void operator()(OrtTensorTypeAndShapeInfo* info) const {
    api->ReleaseTensorTypeAndShapeInfo(info);
  }
};
using ShapeInfo = std::unique_ptr<OrtTensorTypeAndShapeInfo, ReleaseShapeInfo>;

inline Shape dimensions(const OrtTensorTypeAndShapeInfo* info) {
  size_t rank = 0;
  check(api->GetDimensionsCount(info, &rank));
  Shape shape(rank);
  if (rank > 0) check(api->GetDimensions(info, shape.data(), rank));
  return shape;
}

inline Tensor view(const OrtValue* value) {
  Tensor tensor;
  if (value == nullptr) return tensor;
  OrtTensorTypeAndShapeInfo* handle = nullptr;
  check(api->GetTensorTypeAndShape(value, &handle));
  const ShapeInfo info(handle);
  ONNXTensorElementDataType type;
  check(api->GetTensorElementType(info.get(), &type));
  tensor.type = static_cast<Type>(type);
  tensor.shape = dimensions(info.get());
  check(api->GetTensorMutableData(const_cast<OrtValue*>(value), &tensor.memory));
  tensor.present = true;
  return tensor;
}

}  // namespace graphscale::onnxruntime
