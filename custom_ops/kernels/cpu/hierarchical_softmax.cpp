// Loss and gradients of the two-level softmax. Samples are sorted by their target's cluster, so
// that every cluster is one matrix product for all of its samples. Cost: 2 N D (K + n) operations
// for K clusters of n classes, and the same twice again for the gradients; clusters without a
// target are not touched.
#include "kernels/cpu/hierarchical_softmax.h"

#include <numeric>

namespace graphscale {
namespace hierarchical_softmax {

Operator&& with_parameters(Operator&& op, const std::string& map, const std::string& meaning,
                           Trainable trainable) {
  const auto add = [&](const char* name, const char* parameter_meaning) {
    if (trainable == Trainable::kYes) {
      std::move(op).weight(name, parameter_meaning);
    } else {
      std::move(op).input(name, parameter_meaning);
    }
  };
  add("cluster_weight", "[K, D].");
  add("cluster_bias", "[K].");
  add("weight", "Rows of the classes, cluster after cluster [V, D].");
  add("bias", "[V], in the same order.");
  return std::move(op)
      .input(map, Type::kInt64, meaning)
      .input("cluster_start", Type::kInt64, "First row of each cluster, and V at the end [K + 1].");
}

void require_parameters(ShapeCall& call, size_t x, size_t first) {
  call.require_rank(x, 2);
  for (const size_t matrix : {kClusterWeight, kWeight}) {
    call.require_rank(first + matrix, 2);
    call.require_equal(call.inputs[first + matrix][1], call.inputs[x][1],
                       "the widths of x and " + call.input_names[first + matrix]);
  }
  for (const size_t vector : {kClusterBias, kBias, kMap, kClusterStart}) {
    call.require_rank(first + vector, 1);
  }
  const Dim clusters = call.inputs[first + kClusterWeight][0];
  const Dim classes = call.inputs[first + kWeight][0];
  call.require_equal(call.inputs[first + kClusterBias][0], clusters,
                     "the lengths of cluster_bias and cluster_weight");
  call.require_equal(call.inputs[first + kBias][0], classes, "the lengths of bias and weight");
  call.require_equal(call.inputs[first + kMap][0], classes,
                     "the lengths of " + call.input_names[first + kMap] + " and weight");
  call.require_equal(call.inputs[first + kClusterStart][0],
                     compute_dim([](int64_t count) { return count + 1; }, clusters),
                     "the length of cluster_start and the clusters + 1");
}

Tree::Tree(const Call& call, size_t first)
    : clusters(call.inputs[first + kClusterWeight].shape[0]),
      classes(call.inputs[first + kWeight].shape[0]),
      width(call.inputs[first + kWeight].shape[1]),
      start(call.inputs[first + kClusterStart].data<int64_t>()) {
  bool rising = start[0] == 0 && start[clusters] == classes;
  for (int64_t k = 0; k < clusters; ++k) rising = rising && start[k] <= start[k + 1];
  if (!rising) {
    fail("cluster_start must rise from 0 to the " + std::to_string(classes) + " rows of weight");
  }
}

namespace {

// The samples that count, sorted by their target's cluster.
class Targets {
 public:
  Targets(const Call& call, const Tensor& target, const Tensor& class_row, const Tree& tree)
      : order_(call.context, target.size()),
        row_(call.context, target.size()),
        cluster_(call.context, target.size()) {
    const int64_t ignored = call.attributes.integer("ignore_index");
    for (int64_t n = 0; n < target.size(); ++n) {
      const int64_t wanted = target.data<int64_t>()[n];
      if (wanted == ignored) continue;
      if (wanted < 0 || wanted >= tree.classes) {
        fail("target " + std::to_string(wanted) + " of sample " + std::to_string(n) +
             " is no class; classes are 0 to " + std::to_string(tree.classes - 1));
      }
      const int64_t row = class_row.data<int64_t>()[wanted];
      if (row < 0 || row >= tree.classes) {
        fail("class_row of class " + std::to_string(wanted) + " is " + std::to_string(row) +
             "; it must be a row of weight");
      }
      row_[n] = row;
      cluster_[n] = tree.cluster_of_row(row);
      order_[count_++] = n;
    }
    // Samples of one cluster become neighbours, in their own order within it.
    std::sort(order_.get(), order_.get() + count_, [&](int64_t left, int64_t right) {
      return cluster_[left] != cluster_[right] ? cluster_[left] < cluster_[right] : left < right;
    });
    for (int64_t i = 0; i < count_; ++i) {
      if (i == 0 || cluster_[order_[i]] != cluster_[order_[i - 1]]) group_start_.push_back(i);
    }
    group_start_.push_back(count_);
  }

  int64_t count() const { return count_; }
  int64_t sample(int64_t i) const { return order_[i]; }
  int64_t row(int64_t sample) const { return row_[sample]; }
  int64_t cluster(int64_t sample) const { return cluster_[sample]; }
  // Groups of samples with one cluster: positions in the order.
  int64_t groups() const { return static_cast<int64_t>(group_start_.size()) - 1; }
  int64_t begin(int64_t group) const { return group_start_[static_cast<size_t>(group)]; }
  int64_t end(int64_t group) const { return group_start_[static_cast<size_t>(group) + 1]; }

 private:
  ScratchArray<int64_t> order_, row_, cluster_;
  int64_t count_ = 0;
  std::vector<int64_t> group_start_;
};

// visit(context, group, cluster) for every group, in parallel.
template <typename Visit>
void for_each_group(const Context& context, const Targets& targets, const Visit& visit) {
  const Context inner = one_thread(context);
  parallel_for(context, targets.groups(), [&](int64_t group) {
    visit(inner, group, targets.cluster(targets.sample(targets.begin(group))));
  });
}

// visit(begin, end, x, kernel, logits) for the pieces of a group: samples at positions [begin, end)
// of the order, their rows of x, the cluster's rows of weight and the samples' logits in the
// cluster.
template <typename T, typename Wide, typename Visit>
void for_each_piece(const Context& context, const Tree& tree, const Targets& targets, int64_t group,
                    const Tensor* parameters, const Wide* x, const Visit& visit) {
  const int64_t cluster = targets.cluster(targets.sample(targets.begin(group)));
  const int64_t size = tree.size(cluster);
  const int64_t chunk = std::min(targets.end(group) - targets.begin(group), samples_at_once(size));
  const ScratchArray<Wide> rows(context, chunk * tree.width);
  const ScratchArray<Wide> values(context, chunk * size);
  auto room = room_for_rows<T>(context, size, tree.width);
  const Wide* const kernel =
      wide_rows<T>(parameters[kWeight], tree.start[cluster], size, tree.width, room);
  // Rows of x are gathered to lie together: one matrix product gives all logits of the piece.
  for (int64_t begin = targets.begin(group); begin < targets.end(group); begin += chunk) {
    const int64_t end = std::min(begin + chunk, targets.end(group));
    for (int64_t i = begin; i < end; ++i) {
      std::copy_n(x + targets.sample(i) * tree.width, tree.width,
                  rows.get() + (i - begin) * tree.width);
    }
    logits<T, Wide>(context, end - begin, size, tree.width, rows.get(), kernel,
                    parameters[kBias].data<T>() + tree.start[cluster], values.get());
    visit(begin, end, rows.get(), kernel, values.get());
  }
}

// Inputs of the loss: x, target, parameters. The gradient has grad before them.
constexpr size_t kTarget = 1;
constexpr size_t kFirst = 2;

template <typename T>
void loss(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Tree tree(call, kFirst);
  const Tensor* const parameters = &call.inputs[kFirst];
  const Targets targets(call, call.inputs[kTarget], parameters[kMap], tree);
  const WideInput<T> x(call.context, call.inputs[0]);
  const WideInput<T> cluster_weight(call.context, parameters[kClusterWeight]);
  const WideOutput<T> result(call.context, call.outputs[0]);
  const int64_t samples = call.inputs[0].shape[0];
  std::fill_n(result.get(), samples, Wide(0));
  const ScratchArray<Wide> cluster_logits(call.context, samples * tree.clusters);
  // The first level: one product for all samples, then log-sum-exp per sample.
  logits<T, Wide>(call.context, samples, tree.clusters, tree.width, x.get(), cluster_weight.get(),
                  parameters[kClusterBias].data<T>(), cluster_logits.get());
  parallel_ranges(call.context, targets.count(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = targets.sample(i);
      const Wide* const row = cluster_logits.get() + n * tree.clusters;
      result.get()[n] = log_sum_exp(row, tree.clusters) - row[targets.cluster(n)];
    }
  });
  // The second level: per cluster with targets, the logits of its own classes only.
  for_each_group(call.context, targets, [&](const Context& inner, int64_t group, int64_t cluster) {
    const int64_t size = tree.size(cluster);
    for_each_piece<T, Wide>(
        inner, tree, targets, group, parameters, x.get(),
        [&](int64_t begin, int64_t end, const Wide*, const Wide*, const Wide* values) {
          for (int64_t i = begin; i < end; ++i, values += size) {
            const int64_t n = targets.sample(i);
            result.get()[n] +=
                log_sum_exp(values, size) - values[targets.row(n) - tree.start[cluster]];
          }
        });
  });
}

// values <- factor * (softmax(values) - onehot(target)).
template <typename Wide>
void softmax_gradient(Wide* values, int64_t count, int64_t target, Wide factor) {
  const VectorLoops<Wide>& loops = this_machines_loops<Wide>();
  const Wide sum = loops.exponentials(count, values, loops.maximum(count, values), values);
  for (int64_t i = 0; i < count; ++i) values[i] *= factor / sum;
  values[target] -= factor;
}

// First row in grad_weight of every cluster, or -1 for those that it leaves out.
std::vector<int64_t> result_rows(const Call& call, const Tree& tree, const Tensor& clusters,
                                 int64_t rows) {
  if (!clusters.present) return std::vector<int64_t>(tree.start, tree.start + tree.clusters);
  std::vector<int64_t> first(static_cast<size_t>(tree.clusters), -1);
  int64_t used = 0;
  for (int64_t i = 0; i < clusters.size(); ++i) {
    const int64_t cluster = clusters.data<int64_t>()[i];
    if (cluster < 0 || cluster >= tree.clusters || first[static_cast<size_t>(cluster)] >= 0) {
      fail("clusters must be different indices below " + std::to_string(tree.clusters));
    }
    first[static_cast<size_t>(cluster)] = used;
    used += tree.size(cluster);
  }
  if (used != rows) {
    fail("rows is " + std::to_string(call.attributes.integer("rows")) + "; the clusters have " +
         std::to_string(used));
  }
  return first;
}

template <typename T>
void loss_grad(const Call& call) {
  using Wide = typename Accumulator<T>::type;
  const Tree tree(call, kFirst + 1);
  const Tensor* const parameters = &call.inputs[kFirst + 1];
  const Targets targets(call, call.inputs[kTarget + 1], parameters[kMap], tree);
  const Tensor& clusters = call.inputs[kFirst + 1 + kClusterStart + 1];
  const int64_t rows = call.outputs[3].shape[0];
  const std::vector<int64_t> first = result_rows(call, tree, clusters, rows);
  for (int64_t i = 0; i < targets.count(); ++i) {
    const int64_t cluster = targets.cluster(targets.sample(i));
    if (first[static_cast<size_t>(cluster)] < 0) {
      fail("cluster " + std::to_string(cluster) + " of a target is not among clusters");
    }
  }
  const T* const grad = call.inputs[0].data<T>();
  const WideInput<T> x(call.context, call.inputs[1]);
  const WideInput<T> cluster_weight(call.context, parameters[kClusterWeight]);
  const WideOutput<T> grad_x(call.context, call.outputs[0]);
  const WideOutput<T> grad_cluster_weight(call.context, call.outputs[1]);
  const WideOutput<T> grad_cluster_bias(call.context, call.outputs[2]);
  const int64_t samples = call.inputs[1].shape[0];
  const int64_t width = tree.width;

  // The clusters' own softmax.
  const ScratchArray<Wide> errors(call.context, samples * tree.clusters);
  logits<T, Wide>(call.context, samples, tree.clusters, width, x.get(), cluster_weight.get(),
                  parameters[kClusterBias].data<T>(), errors.get());
  const ScratchArray<bool> counts(call.context, samples);
  std::fill_n(counts.get(), samples, false);
  for (int64_t i = 0; i < targets.count(); ++i) counts[targets.sample(i)] = true;
  parallel_ranges(call.context, samples, 16, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      Wide* const row = errors.get() + n * tree.clusters;
      if (counts[n]) {
        softmax_gradient(row, tree.clusters, targets.cluster(n), static_cast<Wide>(grad[n]));
      } else {
        std::fill_n(row, tree.clusters, Wide(0));
      }
    }
  });
  matmul<Wide>(call.context, samples, width, tree.clusters, {errors.get(), tree.clusters, 1},
               {cluster_weight.get(), width, 1}, grad_x.get(), width, false);
  matmul<Wide>(call.context, tree.clusters, width, samples, {errors.get(), 1, tree.clusters},
               {x.get(), width, 1}, grad_cluster_weight.get(), width, false);
  this_machines_loops<Wide>().sum(tree.clusters, samples, tree.clusters, errors.get(),
                                  grad_cluster_bias.get());

  // The softmax within each target's cluster. All gradients of other clusters are zero.
  T* const grad_weight = call.outputs[3].data<T>();
  T* const grad_bias = call.outputs[4].data<T>();
  // Rows of clusters without a target are zeros; they are written without any product.
  std::vector<bool> is_zero(first.size(), true);
  for (int64_t group = 0; group < targets.groups(); ++group) {
    is_zero[static_cast<size_t>(targets.cluster(targets.sample(targets.begin(group))))] = false;
  }
  parallel_ranges(call.context, tree.clusters, 4, [&](int64_t begin, int64_t end) {
    for (int64_t cluster = begin; cluster < end; ++cluster) {
      const int64_t at = first[static_cast<size_t>(cluster)];
      if (at < 0 || !is_zero[static_cast<size_t>(cluster)]) continue;
      std::fill_n(grad_weight + at * width, tree.size(cluster) * width, T(0));
      std::fill_n(grad_bias + at, tree.size(cluster), T(0));
    }
  });
  for_each_group(call.context, targets, [&](const Context& inner, int64_t group, int64_t cluster) {
    const int64_t size = tree.size(cluster);
    const int64_t at = first[static_cast<size_t>(cluster)];
    const WideSum<T> weight_sum(inner, grad_weight + at * width, size * width);
    const WideSum<T> bias_sum(inner, grad_bias + at, size);
    std::fill_n(bias_sum.get(), size, Wide(0));
    for_each_piece<T, Wide>(
        inner, tree, targets, group, parameters, x.get(),
        [&](int64_t begin, int64_t end, const Wide* inputs, const Wide* kernel, Wide* values) {
          const int64_t count = end - begin;
          for (int64_t i = 0; i < count; ++i) {
            const int64_t n = targets.sample(begin + i);
            softmax_gradient(values + i * size, size, targets.row(n) - tree.start[cluster],
                             static_cast<Wide>(grad[n]));
          }
          // grad x += values W, grad W += values' x, grad b += sums of values.
          const ScratchArray<Wide> back(inner, count * width);
          matmul<Wide>(inner, count, width, size, {values, size, 1}, {kernel, width, 1}, back.get(),
                       width, false);
          for (int64_t i = 0; i < count; ++i) {
            Wide* const to = grad_x.get() + targets.sample(begin + i) * width;
            for (int64_t d = 0; d < width; ++d) to[d] += back[i * width + d];
          }
          matmul<Wide>(inner, size, width, count, {values, 1, size}, {inputs, width, 1},
                       weight_sum.get(), width, begin > targets.begin(group));
          for (int64_t i = 0; i < count; ++i) {
            for (int64_t c = 0; c < size; ++c) bias_sum.get()[c] += values[i * size + c];
          }
        });
  });
}

void loss_shape(ShapeCall& call) {
  require_parameters(call, 0, kFirst);
  call.require_rank(kTarget, 1);
  call.require_equal(call.inputs[0][0], call.inputs[kTarget][0], "the samples of x and target");
  call.outputs[0] = {call.inputs[0][0]};
}

void loss_grad_shape(ShapeCall& call) {
  constexpr size_t kParameters = kFirst + 1;
  require_parameters(call, 1, kParameters);
  for (const size_t input : {size_t{0}, kTarget + 1}) {
    call.require_rank(input, 1);
    call.require_equal(call.inputs[1][0], call.inputs[input][0],
                       "the samples of x and " + call.input_names[input]);
  }
  const int64_t given = call.attributes.bounded("rows", -1);
  const bool compact = call.present[kParameters + kClusterStart + 1];
  if (compact != (given >= 0)) fail("clusters and rows belong together; give both or none");
  const Dims& weight = call.inputs[kParameters + kWeight];
  const Dim rows = compact ? Dim(given) : weight[0];
  call.outputs[0] = call.inputs[1];
  call.outputs[1] = call.inputs[kParameters + kClusterWeight];
  call.outputs[2] = call.inputs[kParameters + kClusterBias];
  call.outputs[3] = {rows, weight[1]};
  call.outputs[4] = {rows};
}

constexpr const char* kClassRow = "The row of each class [V].";
constexpr const char* kTargetMeaning =
    "Classes [N]. What is no class is an error; on a GPU, where nothing waits for the kernel to "
    "complain, its loss is not-a-number and it gives no gradient.";
constexpr const char* kIgnored = "A target that is left out: its loss is 0.";

}  // namespace
}  // namespace hierarchical_softmax

using namespace hierarchical_softmax;

Operator hierarchical_softmax_loss() {
  return with_parameters(
             Operator("HierarchicalSoftmaxLoss",
                      "Negative log-likelihood under a two-level softmax: -log softmax(x "
                      "cluster_weight' + cluster_bias)[cluster] - log softmax(x W' + b)[class in "
                      "cluster], W and b being the rows of the target's cluster.")
                 .input("x", "[N, D].")
                 .input("target", Type::kInt64, kTargetMeaning),
             "class_row", kClassRow)
      .output("loss", "[N].")
      .attribute("ignore_index", int64_t{-100}, kIgnored)
      .shape(loss_shape)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { loss<decltype(zero)>(call); });
      });
}

Operator hierarchical_softmax_loss_grad() {
  return with_parameters(Operator("HierarchicalSoftmaxLossGrad",
                                  "Gradients of HierarchicalSoftmaxLoss; those to weight and bias "
                                  "of all rows, or of the rows of some clusters.")
                             .input("grad", "Gradient to loss [N].")
                             .input("x", "[N, D].")
                             .input("target", Type::kInt64, kTargetMeaning),
                         "class_row", kClassRow, Trainable::kNo)
      .optional_input("clusters", Type::kInt64,
                      "Clusters whose rows are wanted, one after another; all targets' are among "
                      "them. All rows when left out.")
      .output("grad_x", "[N, D].")
      .output("grad_cluster_weight", "[K, D].")
      .output("grad_cluster_bias", "[K].")
      .output("grad_weight", "[V or rows, D].")
      .output("grad_bias", "[V or rows].")
      .attribute("ignore_index", int64_t{-100}, kIgnored)
      .attribute("rows", int64_t{-1}, "Rows of the given clusters together; -1 without clusters.")
      .shape(loss_grad_shape)
      .kernel([](const Call& call) {
        dispatch(call.type, [&](auto zero) { loss_grad<decltype(zero)>(call); });
      });
}

}  // namespace graphscale
