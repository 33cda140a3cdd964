// What libgraphscale_cuda.so exports: its kernels, one line per operator.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace graphscale::cuda {
namespace {

std::vector<CudaKernel> list_kernels() {
  const std::vector<Type> all = {Type::kFloat32, Type::kFloat64, Type::kFloat16, Type::kBFloat16};
  return {
      {"CrossMapNormalization", all, cross_map_normalization, nullptr},
      {"CrossMapNormalizationGrad", all, cross_map_normalization_grad, nullptr},
      {"FFTConv", all, fft_conv, prepack_conv, fft_conv_algorithms},
      {"FFTConvGradInput", all, fft_conv_grad_input, prepack_conv, fft_conv_grad_input_algorithms},
      {"FFTConvGradWeight", all, fft_conv_grad_weight, nullptr, fft_conv_grad_weight_algorithms},
      {"FeatureLPPooling", all, feature_lp_pooling, nullptr},
      {"FeatureLPPoolingGrad", all, feature_lp_pooling_grad, nullptr},
      {"HierarchicalSoftmaxLogProb", all, hierarchical_softmax_log_prob, nullptr},
      {"HierarchicalSoftmaxLoss", all, hierarchical_softmax_loss, nullptr},
      {"HierarchicalSoftmaxLossGrad", all, hierarchical_softmax_loss_grad, nullptr},
      {"HierarchicalSoftmaxTopK", all, hierarchical_softmax_top_k, nullptr},
      {"LocallyConnected", all, locally_connected, nullptr},
      {"LocallyConnectedGradInput", all, locally_connected_grad_input, nullptr},
      {"LocallyConnectedGradWeight", all, locally_connected_grad_weight, nullptr},
      {"LookupTable", all, lookup_table, nullptr},
      {"LookupTableGrad", all, lookup_table_grad, nullptr},
      {"Maxout", all, maxout, nullptr},
      {"MaxoutGrad", all, maxout_grad, nullptr},
      {"OneBitDequantize", all, one_bit_dequantize, nullptr},
      {"OneBitQuantize", all, one_bit_quantize, nullptr},
      {"TemporalConv", all, temporal_conv, nullptr},
      {"TemporalConvGradInput", all, temporal_conv_grad_input, nullptr},
      {"TemporalConvGradWeight", all, temporal_conv_grad_weight, nullptr},
      {"TemporalKMaxPool", all, temporal_k_max_pool, nullptr},
      {"WeightedLookupTable", all, weighted_lookup_table, nullptr},
      {"WeightedLookupTableGrad", all, weighted_lookup_table_grad, nullptr},
  };
}

// Returns no kernels where there is no GPU; calls then use those of the CPU.
bool gpu_is_here() {
#ifdef __CUDACC__
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
#else
  return true;
#endif
}

}  // namespace
}  // namespace graphscale::cuda

extern "C" __attribute__((visibility("default"))) const std::vector<graphscale::CudaKernel>*
graphscale_cuda_kernels() {
  using namespace graphscale::cuda;
  if (!gpu_is_here()) return nullptr;
  static const auto* const kernels = new std::vector<graphscale::CudaKernel>(list_kernels());
  return kernels;
}
