// Prepacked weights by address, operator, attributes, type and shape. A 64-bit fingerprint of the
// values, taken at each call at the speed of memory, tells whether they have changed.
#include "torch/prepacked_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/fork.h"

namespace graphscale::torch {
namespace {

constexpr size_t kMaxEntries = 4096;
constexpr int64_t kPiece = 1 << 18;  // bytes that one task reads

size_t max_bytes() {
  static const size_t limit = [] {
    const char* const megabytes = std::getenv("GRAPHSCALE_PREPACKED_MB");
    return static_cast<size_t>(megabytes == nullptr ? 512 : std::max(0, std::atoi(megabytes)))
           << 20;
  }();
  return limit;
}

// One step of a 64-bit fingerprint. The rotation carries what changes in high bits (a float's sign)
// to low ones, from where the product spreads it.
uint64_t mix(uint64_t state, uint64_t word) {
  return (((state << 23) | (state >> 41)) ^ word) * 0x9e3779b97f4a7c15u;
}

// Eight independent chains at once, so that their multiplications overlap.
uint64_t fingerprint(const char* bytes, int64_t count) {
  constexpr int kChains = 8;
  uint64_t chains[kChains], words[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = static_cast<uint64_t>(i);
  constexpr int64_t kStep = sizeof(words);
  for (int64_t at = 0; at < count; at += kStep) {
    if (count - at < kStep) std::memset(words, 0, kStep);
    std::memcpy(words, bytes + at, static_cast<size_t>(std::min(kStep, count - at)));
    for (int i = 0; i < kChains; ++i) chains[i] = mix(chains[i], words[i]);
  }
  uint64_t all = static_cast<uint64_t>(count);
  for (const uint64_t chain : chains) all = mix(all, chain);
  return all ^ (all >> 32);
}

uint64_t fingerprint(const Context& context, const Tensor& tensor) {
  const auto* const bytes = static_cast<const char*>(tensor.memory);
  const int64_t count = element_count(tensor.shape) * type_size(tensor.type);
  std::vector<uint64_t> pieces(static_cast<size_t>((count + kPiece - 1) / kPiece));
  parallel_for(context, static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    pieces[static_cast<size_t>(i)] =
        fingerprint(bytes + i * kPiece, std::min(kPiece, count - i * kPiece));
  });
  uint64_t all = 0;
  for (const uint64_t piece : pieces) all = mix(all, piece);
  return all;
}

// Everything but the weights' values: where they lie, the operator, its attributes, type and shape.
using Key = std::pair<const void*, std::string>;

Key key_of(const Operator& op, const Call& call, const Tensor& weight) {
  std::string text = op.name + ' ' + type_name(call.type) + to_string(weight.shape);
  for (const AttributeDescription& each : op.attributes) {
    if (std::holds_alternative<int64_t>(each.value)) {
      text += ' ' + std::to_string(call.attributes.integer(each.name));
    } else if (std::holds_alternative<double>(each.value)) {
      text += ' ' + std::to_string(call.attributes.number(each.name));
    } else if (std::holds_alternative<std::string>(each.value)) {
      text += ' ' + call.attributes.text(each.name);
    } else {
      text += ' ' + to_string(call.attributes.integers(each.name));
    }
  }
  return {weight.memory, std::move(text)};
}

std::mutex mutex;

void lock_for_fork() {
  max_bytes();  // is found out at its first use
  mutex.lock();
}

[[maybe_unused]] const bool forks =
    at_fork(ForkOrder::kPrepackedCache, lock_for_fork, [] { mutex.unlock(); });

class PrepackedCache {
 public:
  std::shared_ptr<const Prepacked> find(const Operator& op, const Call& call) {
    const Tensor& weight = call.inputs[op.prepacked_input];
    const uint64_t values = fingerprint(call.context, weight);
    const Key key = key_of(op, call, weight);
    {
      const std::lock_guard<std::mutex> lock(mutex);
      Entry& entry = entries_[key];
      // New values: store their fingerprint only. Values seen before: use the prepacked weights, or
      // prepack now.
      const bool is_new = entry.used == 0;
      const bool known = !is_new && entry.values == values;
      entry.used = ++clock_;
      if (!known) {
        entry.values = values;
        entry.prepacked = nullptr;
        if (is_new) drop_oldest();
        return nullptr;
      }
      if (entry.prepacked != nullptr) return entry.prepacked;
    }
    // Without the lock, since prepacking takes as long as a convolution; two threads may both do it
    // once.
    std::vector<Tensor> inputs = call.inputs;
    for (size_t i = 0; i < inputs.size(); ++i) {
      inputs[i].present = inputs[i].present && i == op.prepacked_input;
    }
    std::shared_ptr<const Prepacked> made =
        op.prepack_function(call.context, call.attributes, call.type, inputs);
    const std::lock_guard<std::mutex> lock(mutex);
    Entry& entry = entries_[key];
    if (entry.values == values) entry.prepacked = made;
    drop_oldest();
    return made;
  }

 private:
  struct Entry {
    uint64_t values = 0;
    uint64_t used = 0;  // when, by the clock below
    std::shared_ptr<const Prepacked> prepacked;
  };

  void drop_oldest() {
    size_t bytes = 0;
    for (const auto& [key, entry] : entries_)
      bytes += entry.prepacked ? entry.prepacked->bytes() : 0;
    while (!entries_.empty() && (bytes > max_bytes() || entries_.size() > kMaxEntries)) {
      const auto oldest = std::min_element(
          entries_.begin(), entries_.end(),
          [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
      if (oldest->second.prepacked) bytes -= oldest->second.prepacked->bytes();
      entries_.erase(oldest);
    }
  }

  std::map<Key, Entry> entries_;
  uint64_t clock_ = 0;
};

PrepackedCache& cache = *new PrepackedCache;  // never destroyed: threads may still compute

}  // namespace

std::shared_ptr<const Prepacked> keep_prepacked(const Operator& op, const Call& call) {
  if (op.prepack_function == nullptr || max_bytes() == 0) return nullptr;
  return cache.find(op, call);
}

}  // namespace graphscale::torch
