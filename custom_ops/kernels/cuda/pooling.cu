// Pooling over features, normalisation across maps and k-max pooling over time on CUDA: see
// feature_pool.cpp, cross_map_normalization.cpp and k_max_pool.cpp in kernels/cpu for what they
// compute and how x is laid out. Cost: the bytes of x and y for the first two; 32 passes (64 in
// double) over x for the third.
//
// The first two are one thread per result; neighbouring threads read neighbouring numbers, windows
// come from the cache. K-max pooling is one block per 32 features: the k-th largest value is found
// bit by bit (a radix selection on keys that are ordered as the values are), which needs fewer
// comparisons than sorting.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace graphscale::cuda {
namespace {

// x is seen as [N, features, inner].
struct Windows {
  int64_t features, inner, width, stride, outputs;

  // visit(element of y, which member of its window) for all windows around element i of x.
  template <typename F>
  GRAPHSCALE_DEVICE void for_each_window(int64_t i, const F& visit) const {
    const int64_t row = i / inner;
    const int64_t feature = row % features;
    const int64_t first = feature < width ? 0 : (feature - width) / stride + 1;
    const int64_t last = min(feature / stride, outputs - 1);
    for (int64_t j = first; j <= last; ++j) {
      visit((row / features * outputs + j) * inner + i % inner, feature - j * stride);
    }
  }
};

Windows windows(const Tensor& x, const Attributes& attributes) {
  int64_t inner = 1;
  for (size_t d = 2; d < x.shape.size(); ++d) inner *= x.shape[d];
  const int64_t width = attributes.integer("width");
  const int64_t stride = attributes.integer("stride");
  return {x.shape[1], inner, width, stride, (x.shape[1] - width) / stride + 1};
}

template <typename T>
struct LPPool {
  using Wide = typename Accumulator<T>::type;
  const T* x;
  T* y;
  Windows w;
  Wide power;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t row = i / w.inner;
    const int64_t first = row / w.outputs * w.features + row % w.outputs * w.stride;
    const T* const from = x + first * w.inner + i % w.inner;
    // Members of a window lie `inner` apart; neighbouring threads read neighbouring numbers.
    Wide sum = 0;
    for (int64_t j = 0; j < w.width; ++j) {
      const Wide value = widen(from[j * w.inner]);
      sum += power == 2 ? value * value : std::pow(std::fabs(value), power);
    }
    y[i] = narrow<T>(power == 2 ? std::sqrt(sum) : std::pow(sum, 1 / power));
  }
};

template <typename T>
struct LPPoolGrad {
  using Wide = typename Accumulator<T>::type;
  const T* grad;
  const T* x;
  const T* y;
  T* out;
  Windows w;
  Wide power;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const Wide value = widen(x[i]);
    Wide sum = 0;
    w.for_each_window(i, [&](int64_t at, int64_t) {
      const Wide norm = widen(y[at]);
      if (norm == 0 || value == 0) return;
      const Wide ratio = value / norm;
      const Wide slope =
          power == 2 ? ratio : std::copysign(std::pow(std::fabs(ratio), power - 1), ratio);
      sum += static_cast<Wide>(widen(grad[at])) * slope;
    });
    out[i] = narrow<T>(sum);
  }
};

// The first of the largest members of a window, which are `inner` apart; not-a-number is larger
// than all numbers.
template <typename T>
GRAPHSCALE_DEVICE int64_t find_largest(const T* window, const Windows& w) {
  using Wide = typename Accumulator<T>::type;
  int64_t best = 0;
  Wide largest = widen(window[0]);
  for (int64_t j = 1; j < w.width; ++j) {
    const Wide value = widen(window[j * w.inner]);
    if (value > largest || (value != value && largest == largest)) {
      largest = value;
      best = j;
    }
  }
  return best;
}

template <typename T>
struct Maxout {
  const T* x;
  T* y;
  int64_t* index;  // or null
  Windows w;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const int64_t row = i / w.inner;
    const int64_t first = row % w.outputs * w.stride;
    const T* const from = x + (row / w.outputs * w.features + first) * w.inner + i % w.inner;
    const int64_t best = find_largest(from, w);
    y[i] = from[best * w.inner];
    if (index != nullptr) index[i] = first + best;
  }
};

template <typename T>
struct MaxoutGrad {
  using Wide = typename Accumulator<T>::type;
  const T* grad;
  const T* x;
  T* out;
  Windows w;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    Wide sum = 0;
    w.for_each_window(i, [&](int64_t at, int64_t member) {
      const T* const window = x + i - member * w.inner;
      if (find_largest(window, w) == member) sum += static_cast<Wide>(widen(grad[at]));
    });
    out[i] = narrow<T>(sum);
  }
};

// x is seen as [N, maps, inner].
struct Maps {
  int64_t maps, inner, radius;
};

template <typename T>
struct Neighbours {
  using Wide = typename Accumulator<T>::type;
  Maps m;
  Wide scale, power;
  // The divisor 1 + scale * sum of squares around element i.
  GRAPHSCALE_DEVICE Wide divisor(const T* x, int64_t i) const {
    Wide sum = 0;
    for_each(i, [&](int64_t at) {
      const Wide value = widen(x[at]);
      sum += value * value;
    });
    return 1 + scale * sum;
  }
  template <typename F>
  GRAPHSCALE_DEVICE void for_each(int64_t i, const F& visit) const {
    const int64_t map = i / m.inner % m.maps;
    const int64_t first = max<int64_t>(0, map - m.radius);
    const int64_t last = min(m.maps - 1, map + m.radius);
    for (int64_t j = first; j <= last; ++j) visit(i + (j - map) * m.inner);
  }
};

template <typename T>
struct Normalize {
  const T* x;
  T* y;
  Neighbours<T> around;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    using Wide = typename Accumulator<T>::type;
    const Wide value = widen(x[i]);
    y[i] = narrow<T>(value * std::pow(around.divisor(x, i), -around.power));
  }
};

// What an element passes to its neighbours' gradients: grad x divisor^(-power - 1).
template <typename T>
struct NormalizeShare {
  using Wide = typename Accumulator<T>::type;
  const T* grad;
  const T* x;
  Wide* share;
  Neighbours<T> around;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    const Wide value = static_cast<Wide>(widen(grad[i])) * static_cast<Wide>(widen(x[i]));
    share[i] = value * std::pow(around.divisor(x, i), -around.power - 1);
  }
};

template <typename T>
struct NormalizeGrad {
  using Wide = typename Accumulator<T>::type;
  const T* grad;
  const T* x;
  const Wide* share;
  T* out;
  Neighbours<T> around;
  GRAPHSCALE_DEVICE void operator()(int64_t i) const {
    Wide shares = 0;
    around.for_each(i, [&](int64_t at) { shares += share[at]; });
    const Wide factor = std::pow(around.divisor(x, i), -around.power);
    out[i] = narrow<T>(static_cast<Wide>(widen(grad[i])) * factor -
                       2 * around.scale * around.power * static_cast<Wide>(widen(x[i])) * shares);
  }
};

template <typename T>
Neighbours<T> neighbours(const Call& call, const Tensor& x) {
  using Wide = typename Accumulator<T>::type;
  const int64_t outer = x.shape[0] * x.shape[1];
  return {{x.shape[1], outer == 0 ? 0 : x.size() / outer, call.attributes.integer("size") / 2},
          static_cast<Wide>(call.attributes.number("scale")),
          static_cast<Wide>(call.attributes.number("power"))};
}

// Unsigned integers in the order of the values; not-a-number is the largest, both zeros are equal.
GRAPHSCALE_DEVICE uint32_t ordered_key(float value) {
  if (value != value) return ~uint32_t{0};
  if (value == 0) value = 0;
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
GRAPHSCALE_DEVICE uint64_t ordered_key(double value) {
  if (value != value) return ~uint64_t{0};
  if (value == 0) value = 0;
  uint64_t bits;
  memcpy(&bits, &value, 8);
  return (bits >> 63) != 0 ? ~bits : bits | (uint64_t{1} << 63);
}

// Lanes are features, warps are stretches of time.
template <typename T>
struct KMax {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / kWarp;
  using Key = decltype(ordered_key(typename Accumulator<T>::type()));
  const T* x;
  T* y;
  int64_t* index;
  int64_t frames, features, kept;

  GRAPHSCALE_DEVICE void operator()(const Block& block) const {
    int64_t* const counts = block.shared<int64_t>();  // [2][kWarps][kWarp]
    const int warp = block.thread() / kWarp;
    const int lane = block.thread() % kWarp;
    const int64_t blocks = divide_up(features, kWarp);
    const int64_t sample = block.index() / blocks;
    const int64_t feature = block.index() % blocks * kWarp + lane;
    const bool inside = feature < features;
    const T* const from = x + sample * frames * features + feature;
    const int64_t begin = inside ? frames * warp / kWarps : 0;
    const int64_t end = inside ? frames * (warp + 1) / kWarps : 0;

    // The largest key that at least `kept` keys reach, from its highest bit down.
    Key threshold = 0;
    // One pass over the frames per bit; warps share the frames, lanes are features.
    for (int bit = static_cast<int>(sizeof(Key)) * 8 - 1; bit >= 0; --bit) {
      const Key wanted = threshold | (Key{1} << bit);
      int64_t reached = 0;
      for (int64_t t = begin; t < end; ++t) reached += key(from, t) >= wanted ? 1 : 0;
      if (total(block, counts, reached, 0) >= kept) threshold = wanted;
    }
    // Of the keys that equal it the first ones are kept, as many as there is room for.
    int64_t above = 0;
    int64_t equal = 0;
    for (int64_t t = begin; t < end; ++t) {
      above += key(from, t) > threshold ? 1 : 0;
      equal += key(from, t) == threshold ? 1 : 0;
    }
    const int64_t all_above = total(block, counts, above, 0);
    int64_t above_before = 0;
    for (int other = 0; other < warp; ++other) above_before += counts[other * kWarp + lane];
    total(block, counts, equal, 1);
    int64_t equal_before = 0;
    for (int other = 0; other < warp; ++other)
      equal_before += counts[(kWarps + other) * kWarp + lane];
    // A kept frame's place: the larger keys before it and the equal keys kept before it.
    const int64_t room = kept - all_above;
    for (int64_t t = begin; t < end; ++t) {
      const Key mine = key(from, t);
      if (mine < threshold || (mine == threshold && equal_before++ >= room)) continue;
      const int64_t equal_kept = min(mine == threshold ? equal_before - 1 : equal_before, room);
      const int64_t to = (sample * kept + above_before + equal_kept) * features + feature;
      if (mine > threshold) ++above_before;
      y[to] = from[t * features];
      index[to] = t;
    }
  }

  GRAPHSCALE_DEVICE Key key(const T* from, int64_t t) const {
    return ordered_key(widen(from[t * features]));
  }

  // The sum of a lane's counts over the warps; each stays in counts[which].
  GRAPHSCALE_DEVICE int64_t total(const Block& block, int64_t* counts, int64_t mine,
                                  int which) const {
    const int lane = block.thread() % kWarp;
    int64_t* const row = counts + which * kWarps * kWarp;
    block.sync();
    row[block.thread()] = mine;
    block.sync();
    int64_t sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += row[warp * kWarp + lane];
    return sum;
  }
};

}  // namespace

void feature_lp_pooling(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(
        call.context, call.outputs[0].size(),
        LPPool<T>{call.inputs[0].data<T>(), call.outputs[0].data<T>(),
                  windows(call.inputs[0], call.attributes),
                  static_cast<typename Accumulator<T>::type>(call.attributes.number("power"))});
  });
}

void feature_lp_pooling_grad(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(
        call.context, call.outputs[0].size(),
        LPPoolGrad<T>{call.inputs[0].data<T>(), call.inputs[1].data<T>(), call.inputs[2].data<T>(),
                      call.outputs[0].data<T>(), windows(call.inputs[1], call.attributes),
                      static_cast<typename Accumulator<T>::type>(call.attributes.number("power"))});
  });
}

void maxout(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(
        call.context, call.outputs[0].size(),
        Maxout<T>{call.inputs[0].data<T>(), call.outputs[0].data<T>(),
                  call.outputs[1].data<int64_t>(), windows(call.inputs[0], call.attributes)});
  });
}

void maxout_grad(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(
        call.context, call.outputs[0].size(),
        MaxoutGrad<T>{call.inputs[0].data<T>(), call.inputs[1].data<T>(), call.outputs[0].data<T>(),
                      windows(call.inputs[1], call.attributes)});
  });
}

void cross_map_normalization(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    for_each_index(call.context, call.outputs[0].size(),
                   Normalize<T>{call.inputs[0].data<T>(), call.outputs[0].data<T>(),
                                neighbours<T>(call, call.inputs[0])});
  });
}

void cross_map_normalization_grad(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    const T* const grad = call.inputs[0].data<T>();
    const T* const x = call.inputs[1].data<T>();
    const int64_t count = call.outputs[0].size();
    const Neighbours<T> around = neighbours<T>(call, call.inputs[1]);
    const ScratchArray<typename Accumulator<T>::type> share(call.context, count);
    for_each_index(call.context, count, NormalizeShare<T>{grad, x, share.get(), around});
    for_each_index(call.context, count,
                   NormalizeGrad<T>{grad, x, share.get(), call.outputs[0].data<T>(), around});
  });
}

void temporal_k_max_pool(const Call& call) {
  dispatch(call.type, [&](auto zero) {
    using T = decltype(zero);
    const Shape& shape = call.inputs[0].shape;
    const size_t bytes = 2 * KMax<T>::kThreads * sizeof(int64_t);
    launch_blocks(
        call.context, shape[0] * divide_up(shape[2], kWarp), bytes,
        KMax<T>{call.inputs[0].data<T>(), call.outputs[0].data<T>(),
                call.outputs[1].data<int64_t>(), shape[1], shape[2], call.outputs[0].shape[1]});
  });
}

}  // namespace graphscale::cuda
