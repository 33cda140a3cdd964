// The operators of the library: one line each.
#include "core/operator.h"

#define GRAPHSCALE_OPERATORS(one)                                                                 \
  one(fft_convolution) one(fft_convolution_grad_input) one(fft_convolution_grad_weight)           \
      one(locally_connected) one(locally_connected_grad_input) one(locally_connected_grad_weight) \
          one(temporal_conv) one(temporal_conv_grad_input) one(temporal_conv_grad_weight)         \
              one(lookup_table) one(lookup_table_grad) one(weighted_lookup_table)                 \
                  one(weighted_lookup_table_grad) one(hierarchical_softmax_loss)                  \
                      one(hierarchical_softmax_loss_grad) one(hierarchical_softmax_log_prob)      \
                          one(hierarchical_softmax_top_k) one(feature_lp_pooling)                 \
                              one(feature_lp_pooling_grad) one(maxout) one(maxout_grad)           \
                                  one(cross_map_normalization) one(cross_map_normalization_grad)  \
                                      one(temporal_k_max_pool) one(one_bit_quantize)              \
                                          one(one_bit_dequantize)

namespace graphscale {

#define GRAPHSCALE_DECLARE(operator_name) Operator operator_name();
GRAPHSCALE_OPERATORS(GRAPHSCALE_DECLARE)

const std::vector<Operator>& operators() {
#define GRAPHSCALE_CALL(operator_name) operator_name(),
  static const std::vector<Operator>* const all =
      new std::vector<Operator>{GRAPHSCALE_OPERATORS(GRAPHSCALE_CALL)};
  return *all;
}

const Operator* find_operator(const std::string& name) {
  for (const Operator& op : operators()) {
    if (op.name == name) return &op;
  }
  return nullptr;
}

}  // namespace graphscale
