// Runs every operator through the C interface, on memory that ends where the tensors end: on sizes
// that are right, in every type, on one thread and on several, without the optional inputs, on
// other sizes (often an empty batch), and on sizes that are wrong.
#include <limits>

#include "tests/operator_cases.h"

namespace graphscale {
namespace {

// The case with one thing made wrong (or, by chance, still right).
Case spoiled(Case one) {
  Input& input =
      one.inputs[static_cast<size_t>(random_below(static_cast<int64_t>(one.inputs.size())))];
  static const Integers odd_values = {
      -1, 0, 1, 2, 3, 64, -100, int64_t{1} << 62, std::numeric_limits<int64_t>::min()};
  const auto odd = [&] { return odd_values[static_cast<size_t>(random_below(9))]; };
  switch (random_below(5)) {
    case 0: input.shape.push_back(1); break;
    case 1:
      if (!input.shape.empty()) input.shape.pop_back();
      break;
    case 2:
      if (!input.shape.empty()) {
        input.shape[static_cast<size_t>(random_below(static_cast<int64_t>(input.shape.size())))] =
            random_below(5);
      }
      break;
    case 3:
      if (!input.integers.empty()) input.integers[0] = odd();
      break;
    default:
      if (one.attributes.empty()) break;
      AttributeValue& value = one.attributes[static_cast<size_t>(random_below(
                                                 static_cast<int64_t>(one.attributes.size())))]
                                  .second;
      if (auto* integer = std::get_if<int64_t>(&value)) *integer = odd();
      if (auto* list = std::get_if<Integers>(&value)) list->front() = odd();
      if (auto* number = std::get_if<double>(&value)) *number = -1;
  }
  return one;
}

// The case with all dimensions of one size made another size: often still right, or an empty batch.
Case resized(Case one) {
  const Shape& shape = one.inputs[0].shape;
  if (shape.empty()) return one;
  const int64_t old = shape[static_cast<size_t>(random_below(static_cast<int64_t>(shape.size())))];
  const int64_t size = random_below(4) == 0 ? 0 : random_below(3 * old + 2);
  for (Input& input : one.inputs) std::replace(input.shape.begin(), input.shape.end(), old, size);
  return one;
}

// The case without its optional inputs.
Case shortened(Case one) {
  const Operator& op = *find_operator(one.name);
  for (size_t i = 0; i < one.inputs.size(); ++i) one.inputs[i].left_out = op.inputs[i].optional;
  return one;
}

Guard random_guard() { return random_below(2) == 0 ? Guard::kBefore : Guard::kAfter; }

}  // namespace
}  // namespace graphscale

int main() {
  using namespace graphscale;
  int failures = 0;
  const auto report = [&](const Case& one, Type type, const std::string& what) {
    std::printf("%s, %s, first input %s: %s\n", one.name, type_name(type),
                to_string(one.inputs[0].shape).c_str(), what.c_str());
    ++failures;
  };
  for (const Case& one : cases()) {
    for (const Type type : find_operator(one.name)->variable_types) {
      for (const Guard guard : {Guard::kBefore, Guard::kAfter}) {
        for (const int threads : {1, 3}) {
          const std::string error = run(one, type, threads, guard);
          if (!error.empty()) report(one, type, error);
        }
        if (run(shortened(one), type, 1, guard) == kNan) report(one, type, kNan);
      }
    }
  }
  int refused_sizes = 0, refused = 0;
  constexpr int kResized = 4000, kSpoiled = 4000;
  for (int i = 0; i < kResized; ++i) {
    const Case one = resized(random_case());
    const auto& types = find_operator(one.name)->variable_types;
    const Type type = types[static_cast<size_t>(random_below(static_cast<int64_t>(types.size())))];
    const std::string error = run(one, type, 1 + i % 3, random_guard());
    if (!error.empty()) ++refused_sizes;
    if (error == kNan) report(one, type, error);
  }
  for (int i = 0; i < kSpoiled; ++i) {
    if (!run(spoiled(random_case()), Type::kFloat32, 1, random_guard()).empty()) ++refused;
  }
  for (const Operator& op : operators()) {
    bool driven = false;
    for (const Case& one : cases()) driven = driven || op.name == one.name;
    if (!driven) std::printf("%s: no case\n", op.name.c_str());
    failures += driven ? 0 : 1;
  }
  std::printf("%zu cases, %d failures; refused: %d of %d resized and %d of %d spoiled\n",
              cases().size(), failures, refused_sizes, kResized, refused, kSpoiled);
  return failures == 0 ? 0 : 1;
}
