// The operators of the library: one line each.
#include "kernels/operator.h"

#define GRAPHSCALE_OPERATORS(one) \
  one(temporal_conv)              \
  one(temporal_conv_grad_input)   \
  one(temporal_conv_grad_weight)

namespace graphscale {

#define GRAPHSCALE_DECLARE(operator_name) Operator operator_name();
GRAPHSCALE_OPERATORS(GRAPHSCALE_DECLARE)

const std::vector<Operator>& operators() {
#define GRAPHSCALE_CALL(operator_name) operator_name(),
  static const std::vector<Operator>* const all =
      new std::vector<Operator>{GRAPHSCALE_OPERATORS(GRAPHSCALE_CALL)};
  return *all;
}

}  // namespace graphscale
