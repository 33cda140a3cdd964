// Log-probabilities of a two-level softmax: of all classes, or of the k most probable. The latter
// opens clusters in the order of their probability and stops where no class of the next one can be
// among the k best, for a class is at most as probable as its cluster. Cost for N samples, K
// clusters of n classes and width D: 2 N D (K + K n) operations for all classes; 2 N D K, and 2 D n
// per opened cluster, for the k best. Memory: N K values and one cluster.
#include <numeric>

#include "kernels/cpu/hierarchical_softmax.h"

namespace graphscale {
namespace hierarchical_softmax {
namespace {

constexpr size_t kFirst = 1;  // position of cluster_weight, after x

constexpr const char* kRowClass = "The class of each row [V].";

void check_classes(const Tensor& row_class, int64_t classes) {
  for (int64_t row = 0; row < classes; ++row) {
    const int64_t value = row_class.data<int64_t>()[row];
    if (value < 0 || value >= classes) {
      fail("row_class of row " + std::to_string(row) + " is " + std::to_string(value) +
           "; classes are 0 to " + std::to_string(classes - 1));
    }
  }
}

// values <- log softmax(values).
template <typename Wide>
void normalize(Wide* values, int64_t count) {
  const Wide total = log_sum_exp(values, count);
  for (int64_t i = 0; i < count; ++i) values[i] -= total;
}

// Log-probabilities of the clusters [N, K].
template <typename T>
void cluster_log_prob(const Call& call, const Tree& tree, const typename Accumulator<T>::type* x,
                      typename Accumulator<T>::type* result) {
  using Wide = typename Accumulator<T>::type;
  const int64_t samples = call.inputs[0].shape[0];
  const WideInput<T> weight(call.context, call.inputs[kFirst + kClusterWeight]);
  logits<T, Wide>(call.context, samples, tree.clusters, tree.width, x, weight.get(),
                  call.inputs[kFirst + kClusterBias].data<T>(), result);
  parallel_ranges(call.context, samples, 16, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) normalize(result + n * tree.clusters, tree.clusters);
  });
}

template <typename T>
void log_prob(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Tree tree(call, kFirst);
  const Tensor& row_class = call.inputs[kFirst + kMap];
  check_classes(row_class, tree.classes);
  const int64_t* const class_of = row_class.data<int64_t>();
  const int64_t samples = call.inputs[0].shape[0];
  const WideInput<T> x(call.context, call.inputs[0]);
  const ScratchArray<Wide> clusters(call.context, samples * tree.clusters);
  cluster_log_prob<T>(call, tree, x.get(), clusters.get());
  T* const result = call.outputs[0].data<T>();
  const Context inner = one_thread(call.context);
  // A task owns a cluster: its rows of weight are read once for all samples; results go to the
  // classes' own places.
  parallel_for(call.context, tree.clusters, [&](int64_t cluster) {
    const int64_t size = tree.size(cluster);
    const int64_t start = tree.start[cluster];
    const int64_t chunk = std::min(samples, samples_at_once(size));
    const ScratchArray<Wide> values(call.context, chunk * size);
    auto room = room_for_rows<T>(call.context, size, tree.width);
    const Wide* const weight =
        wide_rows<T>(call.inputs[kFirst + kWeight], start, size, tree.width, room);
    for (int64_t begin = 0; begin < samples; begin += chunk) {
      const int64_t count = std::min(chunk, samples - begin);
      logits<T, Wide>(inner, count, size, tree.width, x.get() + begin * tree.width, weight,
                      call.inputs[kFirst + kBias].data<T>() + start, values.get());
      for (int64_t n = 0; n < count; ++n) {
        Wide* const row = values.get() + n * size;
        normalize(row, size);
        const Wide outer = clusters[(begin + n) * tree.clusters + cluster];
        T* const to = result + (begin + n) * tree.classes;
        for (int64_t i = 0; i < size; ++i) to[class_of[start + i]] = T(outer + row[i]);
      }
    }
  });
}

template <typename Wide>
struct Candidate {
  Wide value;
  int64_t index;

  // The more probable first; of equals the one with the smaller index. Not-a-number comes last.
  static bool better(const Candidate& left, const Candidate& right) {
    const Wide a = std::isnan(left.value) ? -std::numeric_limits<Wide>::infinity() : left.value;
    const Wide b = std::isnan(right.value) ? -std::numeric_limits<Wide>::infinity() : right.value;
    return a != b ? a > b : left.index < right.index;
  }
};

template <typename T>
void top_k(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Tree tree(call, kFirst);
  const Tensor& row_class = call.inputs[kFirst + kMap];
  check_classes(row_class, tree.classes);
  const int64_t k = call.outputs[0].shape[1];
  const int64_t samples = call.inputs[0].shape[0];
  const WideInput<T> x(call.context, call.inputs[0]);
  const ScratchArray<Wide> clusters(call.context, samples * tree.clusters);
  cluster_log_prob<T>(call, tree, x.get(), clusters.get());
  int64_t largest = 0;
  for (int64_t c = 0; c < tree.clusters; ++c) largest = std::max(largest, tree.size(c));
  const Context inner = one_thread(call.context);
  parallel_ranges(call.context, samples, 1, [&](int64_t begin, int64_t end) {
    using Entry = Candidate<Wide>;
    const ScratchArray<Entry> order(call.context, tree.clusters);
    const ScratchArray<Entry> best(call.context, k + 1);
    const ScratchArray<Wide> values(call.context, largest);
    auto room = room_for_rows<T>(call.context, largest, tree.width);
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t c = 0; c < tree.clusters; ++c) {
        order[c] = {clusters[n * tree.clusters + c], c};
      }
      // Clusters by falling probability. `outer` bounds the probability of every class in a
      // cluster, so the loop ends at the first cluster that cannot beat the worst of k found.
      std::sort(order.get(), order.get() + tree.clusters, Entry::better);
      int64_t found = 0;  // best is a heap of them, its worst at the front
      for (int64_t c = 0; c < tree.clusters; ++c) {
        const auto [outer, cluster] = order[c];
        if (found == k && !(outer > best[0].value)) break;
        const int64_t size = tree.size(cluster);
        const int64_t start = tree.start[cluster];
        const Wide* const weight =
            wide_rows<T>(call.inputs[kFirst + kWeight], start, size, tree.width, room);
        logits<T, Wide>(inner, 1, size, tree.width, x.get() + n * tree.width, weight,
                        call.inputs[kFirst + kBias].data<T>() + start, values.get());
        normalize(values.get(), size);
        for (int64_t i = 0; i < size; ++i) {
          // The heap has the worst of the best at its front: a better class takes its place.
          const Entry entry{outer + values[i], row_class.data<int64_t>()[start + i]};
          if (found == k && !Entry::better(entry, best[0])) continue;
          best[found++] = entry;
          std::push_heap(best.get(), best.get() + found, Entry::better);
          if (found <= k) continue;
          std::pop_heap(best.get(), best.get() + found, Entry::better);
          --found;
        }
      }
      std::sort(best.get(), best.get() + found, Entry::better);
      for (int64_t i = 0; i < k; ++i) {
        call.outputs[0].data<T>()[n * k + i] = T(best[i].value);
        call.outputs[1].data<int64_t>()[n * k + i] = best[i].index;
      }
    }
  });
}

}  // namespace
}  // namespace hierarchical_softmax

using namespace hierarchical_softmax;

Operator hierarchical_softmax_log_prob() {
  return with_parameters(Operator("HierarchicalSoftmaxLogProb",
                                  "Log-probabilities of all classes under a two-level softmax.")
                             .input("x", "[N, D]."),
                         "row_class", kRowClass)
      .output("log_prob", "[N, V], by class.")
      .shape([](ShapeCall& call) {
        require_parameters(call, 0, kFirst);
        call.outputs[0] = {call.inputs[0][0], call.inputs[kFirst + kWeight][0]};
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { log_prob<decltype(zero)>(call); });
      });
}

Operator hierarchical_softmax_top_k() {
  return with_parameters(
             Operator("HierarchicalSoftmaxTopK",
                      "The k most probable classes under a two-level softmax, the best first.")
                 .input("x", "[N, D]."),
             "row_class", kRowClass)
      .output("log_prob", "[N, k].")
      .output("index", Type::kInt64, "Classes [N, k].")
      .required_attribute("k", int64_t{0}, "How many classes.")
      .shape([](ShapeCall& call) {
        require_parameters(call, 0, kFirst);
        const int64_t k = call.attributes.bounded("k", 1);
        const Dim classes = call.inputs[kFirst + kWeight][0];
        if (classes.known() && k > classes.value) {
          fail("k is " + std::to_string(k) + "; it must be at most the number of classes, " +
               std::to_string(classes.value));
        }
        call.outputs[0] = call.outputs[1] = {call.inputs[0][0], k};
      })
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { top_k<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
