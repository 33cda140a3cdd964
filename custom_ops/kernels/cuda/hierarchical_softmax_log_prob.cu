// Log-probabilities of all classes of a two-level softmax on CUDA: see
// hierarchical_softmax_inference.cpp for what they are.
//
// One product per 256 MiB of logits, then a block (a warp where clusters are small) normalises each
// cluster of each sample. Cost: 2 N V D operations, and 4 to 8 bytes written and twice read per
// logit beside the result.
#include "kernels/cuda/hierarchical_softmax_inference.h"
#include "kernels/cuda/kernels.h"

namespace graphscale::cuda {
namespace {

struct CheckClasses {
  const int64_t* row_class;
  int64_t classes;
  int* broken;
  GRAPHSCALE_DEVICE void operator()(int64_t row) const {
    if (row_class[row] < 0 || row_class[row] >= classes) *broken = 1;  // all write the same
  }
};

template <typename T>
void log_prob(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Context& context = call.context;
  const Inference<T> given(call);
  const int64_t classes = given.clusters.rows;
  T* const result = call.outputs[0].data<T>();
  for_each_index(context, classes, CheckClasses{given.row_class, classes, given.broken.get()});
  const int64_t chunk =
      samples_at_once(given.samples, classes * static_cast<int64_t>(sizeof(Wide)));
  const ScratchArray<Wide> logits(context, chunk * classes);
  for (int64_t begin = 0; begin < given.samples; begin += chunk) {
    const int64_t count = std::min(chunk, given.samples - begin);
    make_logits(context, given.x + begin * given.width, count, given.parameters[kWeight],
                given.parameters[kBias], logits.get());
    normalize<T>(context, count, logits.get(), given.outer.get() + begin * given.clusters.count,
                 given.row_class, given.clusters, result + begin * classes);
  }
  nan_if_broken<T>(context, given.broken.get(), call.outputs[0]);
}

}  // namespace

void hierarchical_softmax_log_prob(const Call& call) {
  dispatch(call.type, [&](auto zero) { log_prob<decltype(zero)>(call); });
}

}  // namespace graphscale::cuda
