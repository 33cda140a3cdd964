// Attributes by kind: onnxruntime has one reader per type, and another interface while shapes are
// inferred.
#include "onnxruntime/attributes.h"

#include <optional>

namespace graphscale::onnxruntime {
namespace {

using Value = std::optional<AttributeValue>;

Value read_integer(const OrtKernelInfo* info, const char* name) {
  int64_t value = 0;
  if (!succeeded(api->KernelInfoGetAttribute_int64(info, name, &value))) return {};
  return value;
}

Value read_number(const OrtKernelInfo* info, const char* name) {
  float value = 0;
  if (!succeeded(api->KernelInfoGetAttribute_float(info, name, &value))) return {};
  return static_cast<double>(value);
}

Value read_text(const OrtKernelInfo* info, const char* name) {
  size_t size = 0;
  if (!succeeded(api->KernelInfoGetAttribute_string(info, name, nullptr, &size))) return {};
  std::string text(size, '\0');
  check(api->KernelInfoGetAttribute_string(info, name, text.data(), &size));
  text.resize(size - 1);  // without the final zero
  return text;
}

Value read_integers(const OrtKernelInfo* info, const char* name) {
  size_t size = 0;
  if (!succeeded(api->KernelInfoGetAttributeArray_int64(info, name, nullptr, &size))) return {};
  std::vector<int64_t> values(size);
  if (size > 0) check(api->KernelInfoGetAttributeArray_int64(info, name, values.data(), &size));
  return values;
}

constexpr const char* kKinds[] = {"an integer", "a float", "a string", "a list of integers"};
constexpr Value (*kReaders[])(const OrtKernelInfo*, const char*) = {read_integer, read_number,
                                                                    read_text, read_integers};

}  // namespace

Attributes read_attributes(const Operator& op, const OrtKernelInfo* info) {
  Attributes attributes;
  for (const AttributeDescription& known : op.attributes) {
    const size_t kind = known.value.index();
    const char* name = known.name.c_str();
    if (Value value = kReaders[kind](info, name)) {
      attributes.set(known.name, std::move(*value));
      continue;
    }
    // A failed read gives no reason; reading the attribute as other types tells a wrong type from a
    // missing value.
    for (size_t other = 0; other < std::size(kReaders); ++other) {
      if (other != kind && kReaders[other](info, name)) {
        fail("attribute '" + known.name + "' is " + kKinds[other] + "; it must be " + kKinds[kind]);
      }
    }
    if (known.required) fail("attribute '" + known.name + "' is missing; give " + kKinds[kind]);
    attributes.set(known.name, known.value);
  }
  return attributes;
}

Attributes read_attributes(const Operator& op, const OrtShapeInferContext* context) {
  Attributes attributes;
  for (const AttributeDescription& known : op.attributes) {
    const OrtOpAttr* attribute = nullptr;
    if (!succeeded(api->ShapeInferContext_GetAttribute(context, known.name.c_str(), &attribute)) ||
        attribute == nullptr) {
      if (known.required) fail("attribute '" + known.name + "' is missing; give it");
      attributes.set(known.name, known.value);
      continue;
    }
    size_t bytes = 0;
    if (std::holds_alternative<int64_t>(known.value)) {
      int64_t value = 0;
      check(api->ReadOpAttr(attribute, ORT_OP_ATTR_INT, &value, sizeof(value), &bytes));
      attributes.set(known.name, value);
    } else if (std::holds_alternative<double>(known.value)) {
      float value = 0;
      check(api->ReadOpAttr(attribute, ORT_OP_ATTR_FLOAT, &value, sizeof(value), &bytes));
      attributes.set(known.name, static_cast<double>(value));
    } else if (std::holds_alternative<std::string>(known.value)) {
      succeeded(api->ReadOpAttr(attribute, ORT_OP_ATTR_STRING, nullptr, 0, &bytes));
      std::string value(bytes, '\0');
      check(api->ReadOpAttr(attribute, ORT_OP_ATTR_STRING, value.data(), bytes, &bytes));
      attributes.set(known.name, std::string(value.c_str()));
    } else {
      succeeded(api->ReadOpAttr(attribute, ORT_OP_ATTR_INTS, nullptr, 0, &bytes));
      std::vector<int64_t> value(bytes / sizeof(int64_t));
      check(api->ReadOpAttr(attribute, ORT_OP_ATTR_INTS, value.data(), bytes, &bytes));
      attributes.set(known.name, std::move(value));
    }
  }
  return attributes;
}

}  // namespace graphscale::onnxruntime
