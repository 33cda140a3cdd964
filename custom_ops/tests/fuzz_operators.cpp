// Random nodes of every operator, near-valid and absurd: each must end in a result or in one error.
// A convolution's result must equal a plain sum over its taps. Sanitizers and guarded memory see
// what goes wrong inside.
//
// fuzz_operators [NODES] [SEED]: a failure names the seed of its node, which repeats it alone:
// fuzz_operators 1 SEED.
#include <cstdlib>
#include <limits>

#include "tests/operator_cases.h"

namespace graphscale {
namespace {

template <typename T>
const T& one_of(const std::vector<T>& values) {
  return values[static_cast<size_t>(random_below(static_cast<int64_t>(values.size())))];
}

bool by_chance(int64_t one_in) { return random_below(one_in) == 0; }

// --- absurd nodes: a right call, with up to four things changed -----------------------------------

int64_t random_integer() {
  static const Integers odd = {-1,
                               -100,
                               64,
                               255,
                               int64_t{1} << 31,
                               (int64_t{1} << 31) - 1,
                               int64_t{1} << 40,
                               int64_t{1} << 62,
                               std::numeric_limits<int64_t>::max(),
                               std::numeric_limits<int64_t>::min()};
  return by_chance(3) ? one_of(odd) : random_below(10);
}

AttributeValue random_value(const AttributeValue& kind) {
  static const std::vector<double> numbers = {
      0, -1, 0.5, 2, 1e30, -1e308, 1e-9, NAN, std::numeric_limits<double>::infinity()};
  static const std::vector<std::string> texts = {"",
                                                 "auto",
                                                 "NOTSET",
                                                 "SAME_UPPER",
                                                 "SAME_LOWER",
                                                 "VALID",
                                                 "direct",
                                                 "winograd 4x4",
                                                 "dense 16x16",
                                                 "per_channel 72x72",
                                                 "dense 0x0",
                                                 "dense -1x9",
                                                 "dense 9999999999999999999x3",
                                                 "dense",
                                                 "16x16 dense x"};
  if (std::holds_alternative<int64_t>(kind)) return random_integer();
  if (std::holds_alternative<double>(kind)) return one_of(numbers);
  if (std::holds_alternative<std::string>(kind)) return one_of(texts);
  Integers list(static_cast<size_t>(random_below(7)));
  for (int64_t& each : list) each = random_integer();
  return list;
}

void change_attribute(Case& one) {
  const Operator& op = *find_operator(one.name);
  if (op.attributes.empty()) return;
  const AttributeDescription& known = one_of(op.attributes);
  for (auto& [name, value] : one.attributes) {
    if (name != known.name) continue;
    auto* const list = std::get_if<Integers>(&value);
    if (list != nullptr && !list->empty() && !by_chance(3)) {  // one number of a right list
      (*list)[static_cast<size_t>(random_below(static_cast<int64_t>(list->size())))] =
          random_integer();
    } else {
      value = random_value(known.value);
    }
    return;
  }
  one.attributes.emplace_back(known.name, random_value(known.value));
}

void change_input(Case& one) {
  Input& input =
      one.inputs[static_cast<size_t>(random_below(static_cast<int64_t>(one.inputs.size())))];
  const auto place = [&] {
    return static_cast<size_t>(random_below(static_cast<int64_t>(input.shape.size())));
  };
  switch (random_below(6)) {
    case 0: input.shape.push_back(random_below(4)); return;
    case 1:
      if (!input.shape.empty()) input.shape.pop_back();
      return;
    case 2:
      if (!input.shape.empty()) input.shape[place()] = random_below(40);
      return;
    case 3: input.left_out = true; return;
    case 4: input.integers = {random_integer(), random_integer(), random_integer()}; return;
    default:  // one size, wherever it stands: often still right
      if (input.shape.empty()) return;
      const int64_t old = input.shape[place()], size = random_below(3 * old + 2);
      for (Input& each : one.inputs) std::replace(each.shape.begin(), each.shape.end(), old, size);
  }
}

Case absurd_node() {
  Case one = random_case();
  for (int64_t changes = 1 + random_below(4); changes > 0; --changes) {
    by_chance(2) ? change_attribute(one) : change_input(one);
  }
  return one;
}

// --- convolutions, and what they must give --------------------------------------------------------

Integers numbers_below(size_t count, int64_t limit, int64_t least) {
  Integers numbers(count);
  for (int64_t& each : numbers) each = least + random_below(limit - least);
  return numbers;
}

Case random_convolution() {
  const auto axes = static_cast<size_t>(1 + random_below(2));
  const int64_t groups = by_chance(3) ? 1 + random_below(4) : 1;
  const int64_t ins = groups * (1 + random_below(4)), outs = groups * (1 + random_below(4));
  Shape x = {1 + random_below(2), ins}, weight = {outs, ins / groups};
  const int64_t most = by_chance(4) ? 24 : 6;  // taps of a kernel
  for (size_t axis = 0; axis < axes; ++axis) {
    weight.push_back(by_chance(50) ? 0 : 1 + random_below(most));
    x.push_back(by_chance(50) ? 0 : weight.back() / 2 + random_below(32));
  }
  static const std::vector<std::string> paddings = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
  static const std::vector<std::string> algorithms = {
      "auto",         "auto",        "direct",     "winograd 4x4",
      "winograd 6x6", "dense 16x16", "dense 32x8", "per_channel 16x16"};
  Case one{
      "FFTConv", {{x}, {weight}, {{outs}}}, {{"group", groups}, {"algorithm", one_of(algorithms)}}};
  one.inputs[2].left_out = by_chance(2);
  if (by_chance(2)) one.attributes.emplace_back("strides", numbers_below(axes, 4, 1));
  if (by_chance(3)) one.attributes.emplace_back("dilations", numbers_below(axes, 4, 1));
  if (by_chance(4)) one.attributes.emplace_back("minimum", 0.0);
  if (by_chance(2)) {
    one.attributes.emplace_back("pads", numbers_below(2 * axes, most + 1, 0));
  } else {
    one.attributes.emplace_back("auto_pad", one_of(paddings));
  }
  return one;
}

template <typename T>
T attribute_of(const Case& one, const char* name, T otherwise) {
  for (const auto& [given, value] : one.attributes) {
    if (given == name) return std::get<T>(value);
  }
  return otherwise;
}

// The output by its definition: for each pixel the sum over the taps, in double precision.
// Convolutions with one axis have a second one of size 1 here.
std::string unequal_to_definition(const Case& one, const std::vector<Tensor>& inputs,
                                  const std::vector<Tensor>& outputs) {
  const size_t axes = inputs[0].shape.size() - 2;
  const auto strides = attribute_of(one, "strides", Integers(axes, 1));
  const auto dilations = attribute_of(one, "dilations", Integers(axes, 1));
  auto pads = attribute_of(one, "pads", Integers(2 * axes, 0));
  const auto padding = attribute_of(one, "auto_pad", std::string("NOTSET"));
  int64_t size[2] = {1, 1}, taps[2] = {1, 1}, out[2] = {1, 1};
  int64_t stride[2] = {1, 1}, dilation[2] = {1, 1}, begin[2] = {0, 0};
  for (size_t axis = 0; axis < axes; ++axis) {
    size[axis] = inputs[0].shape[axis + 2], taps[axis] = inputs[1].shape[axis + 2];
    stride[axis] = strides[axis], dilation[axis] = dilations[axis];
    const int64_t spanned = (taps[axis] - 1) * dilation[axis] + 1;
    if (padding.compare(0, 4, "SAME") == 0) {
      out[axis] = (size[axis] + stride[axis] - 1) / stride[axis];
      const int64_t all =
          std::max<int64_t>((out[axis] - 1) * stride[axis] + spanned - size[axis], 0);
      begin[axis] = padding == "SAME_UPPER" ? all / 2 : all - all / 2;
    } else {
      begin[axis] = pads[axis];
      out[axis] = (size[axis] + pads[axis] + pads[axis + axes] - spanned) / stride[axis] + 1;
    }
    if (outputs[0].shape[axis + 2] != out[axis]) return "the output has another size than Conv's";
  }
  const int64_t outs = inputs[1].shape[0], ins = inputs[1].shape[1], channels = inputs[0].shape[1];
  const int64_t groups = channels / ins;
  const auto* const x = static_cast<const float*>(inputs[0].memory);
  const auto* const weight = static_cast<const float*>(inputs[1].memory);
  const auto* const y = static_cast<const float*>(outputs[0].memory);
  const auto minimum = attribute_of(one, "minimum", -INFINITY * 1.0);
  int64_t at = 0;
  for (int64_t image = 0; image < inputs[0].shape[0]; ++image) {
    for (int64_t to = 0; to < outs; ++to) {
      const int64_t first = to / (outs / groups) * ins;  // input channel of the group
      for (int64_t row = 0; row < out[0]; ++row) {
        for (int64_t column = 0; column < out[1]; ++column, ++at) {
          double sum = inputs[2].present ? static_cast<const float*>(inputs[2].memory)[to] : 0;
          double scale = 1;
          for (int64_t from = 0; from < ins; ++from) {
            for (int64_t i = 0; i < taps[0]; ++i) {
              for (int64_t j = 0; j < taps[1]; ++j) {
                const int64_t v = row * stride[0] + i * dilation[0] - begin[0];
                const int64_t u = column * stride[1] + j * dilation[1] - begin[1];
                if (v < 0 || v >= size[0] || u < 0 || u >= size[1]) continue;
                const double term =
                    double{x[((image * channels + first + from) * size[0] + v) * size[1] + u]} *
                    weight[((to * ins + from) * taps[0] + i) * taps[1] + j];
                sum += term;
                scale += std::abs(term);
              }
            }
          }
          const double wanted = std::max(sum, minimum);
          // Transforms spread the rounding of a whole tile over its pixels.
          if (std::abs(wanted - y[at]) > 2e-4 * (scale + static_cast<double>(ins))) {
            return "pixel " + std::to_string(at) + " is " + std::to_string(y[at]) + ", not " +
                   std::to_string(wanted);
          }
        }
      }
    }
  }
  return "";
}

std::string text_of(const Case& one) {
  std::string text = one.name;
  for (const Input& input : one.inputs)
    text += input.left_out ? " -" : " " + to_string(input.shape);
  for (const auto& [name, value] : one.attributes) {
    text += " " + name + "=";
    if (const auto* integer = std::get_if<int64_t>(&value)) text += std::to_string(*integer);
    if (const auto* number = std::get_if<double>(&value)) text += std::to_string(*number);
    if (const auto* words = std::get_if<std::string>(&value)) text += *words;
    if (const auto* list = std::get_if<Integers>(&value)) text += to_string(*list);
  }
  return text;
}

}  // namespace
}  // namespace graphscale

int main(int count, char** arguments) {
  using namespace graphscale;
  const int nodes = count > 1 ? std::atoi(arguments[1]) : 10'000;
  const unsigned seed =
      count > 2 ? static_cast<unsigned>(std::strtoul(arguments[2], nullptr, 10)) : 0;
  int failures = 0, refused = 0;
  for (int i = 0; i < nodes; ++i) {
    const unsigned own = seed + static_cast<unsigned>(i);
    generator().seed(own);
    const bool convolution = by_chance(2);
    const Case one = convolution ? random_convolution() : absurd_node();
    const Type type =
        convolution ? Type::kFloat32 : one_of(find_operator(one.name)->variable_types);
    std::string wrong;
    const Check check = [&](const auto& inputs, const auto& outputs) {
      if (convolution) wrong = unequal_to_definition(one, inputs, outputs);
      return wrong;
    };
    if (count == 3) std::printf("%u: %s\n", own, text_of(one).c_str());
    const Guard guard = by_chance(2) ? Guard::kBefore : Guard::kAfter;
    const std::string error = run(one, type, 1 + static_cast<int>(random_below(3)), guard, check);
    if (convolution && error == kNan) wrong = error;
    if (!wrong.empty()) {
      std::printf("seed %u: %s: %s\n", own, text_of(one).c_str(), wrong.c_str());
      ++failures;
    } else if (!error.empty()) {
      ++refused;
    }
  }
  std::printf("%d nodes, of which %d refused; %d failures\n", nodes, refused, failures);
  return failures == 0 ? 0 : 1;
}
