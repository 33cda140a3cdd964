// The kernels of libgraphscale_cuda.so; library.cu says which operators and types they are for.
#pragma once

#include "core/cuda_library.h"

namespace graphscale::cuda {

void cross_map_normalization(const Call& call);
void cross_map_normalization_grad(const Call& call);
void feature_lp_pooling(const Call& call);
void feature_lp_pooling_grad(const Call& call);
void fft_conv(const Call& call);
void fft_conv_grad_input(const Call& call);
void fft_conv_grad_weight(const Call& call);
void hierarchical_softmax_log_prob(const Call& call);
void hierarchical_softmax_loss(const Call& call);
void hierarchical_softmax_loss_grad(const Call& call);
void hierarchical_softmax_top_k(const Call& call);
void locally_connected(const Call& call);
void locally_connected_grad_input(const Call& call);
void locally_connected_grad_weight(const Call& call);
void lookup_table(const Call& call);
void lookup_table_grad(const Call& call);
void maxout(const Call& call);
void maxout_grad(const Call& call);
void one_bit_dequantize(const Call& call);
void one_bit_quantize(const Call& call);
void temporal_conv(const Call& call);
void temporal_conv_grad_input(const Call& call);
void temporal_conv_grad_weight(const Call& call);
void temporal_k_max_pool(const Call& call);
void weighted_lookup_table(const Call& call);
void weighted_lookup_table_grad(const Call& call);

// The algorithms worth measuring for a call, cheapest by the cost model first.
std::vector<std::string> fft_conv_algorithms(const Call& call);
std::vector<std::string> fft_conv_grad_input_algorithms(const Call& call);
std::vector<std::string> fft_conv_grad_weight_algorithms(const Call& call);

// FFTConv and FFTConvGradInput keep the spectra of a constant weight.
std::unique_ptr<Prepacked> prepack_conv(const Context& context, const Attributes& attributes,
                                        Type type, const std::vector<Tensor>& inputs);

}  // namespace graphscale::cuda
