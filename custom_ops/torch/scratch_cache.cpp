// A list of idle blocks under a lock; the size of a block stands in front of its memory.
#include "torch/scratch_cache.h"

#include <cstdlib>
#include <mutex>
#include <vector>

#include "core/fork.h"
#include "torch/huge_pages.h"

namespace graphscale::torch {
namespace {

constexpr size_t kMaxIdle = size_t{256} << 20;
constexpr size_t kAlignment = 64;

// The size of a block stands in front of its memory.
size_t& size_of(void* memory) {
  return *reinterpret_cast<size_t*>(static_cast<char*>(memory) - kAlignment);
}

std::mutex mutex;
[[maybe_unused]] const bool forks =
    at_fork(ForkOrder::kInnermost, [] { mutex.lock(); }, [] { mutex.unlock(); });

class ScratchCache {
 public:
  // The smallest idle block that is large enough, unless it is more than twice that.
  void* take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    size_t best = idle_.size();
    for (size_t i = 0; i < idle_.size(); ++i) {
      const size_t size = size_of(idle_[i]);
      const bool fits = size >= bytes && size / 2 <= bytes;
      if (fits && (best == idle_.size() || size < size_of(idle_[best]))) best = i;
    }
    if (best == idle_.size()) return nullptr;
    void* const memory = idle_[best];
    idle_.erase(idle_.begin() + static_cast<ptrdiff_t>(best));
    idle_bytes_ -= size_of(memory);
    return memory;
  }

  // Blocks that have been idle the longest go first.
  void give_back(void* memory) {
    const std::lock_guard<std::mutex> lock(mutex);
    idle_.push_back(memory);
    idle_bytes_ += size_of(memory);
    while (idle_bytes_ > kMaxIdle) {
      idle_bytes_ -= size_of(idle_.front());
      std::free(static_cast<char*>(idle_.front()) - kAlignment);
      idle_.erase(idle_.begin());
    }
  }

 private:
  std::vector<void*> idle_;
  size_t idle_bytes_ = 0;
};

// Never destroyed: threads may still compute while the process ends.
ScratchCache& cache = *new ScratchCache;

}  // namespace

void* take_scratch(size_t bytes) {
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (void* const memory = cache.take(rounded)) return memory;
  void* const block = std::aligned_alloc(kAlignment, rounded + kAlignment);
  if (block == nullptr) return nullptr;
  prefer_huge_pages(block, rounded + kAlignment);
  void* const memory = static_cast<char*>(block) + kAlignment;
  size_of(memory) = rounded;
  return memory;
}

void return_scratch(void* memory) { cache.give_back(memory); }

}  // namespace graphscale::torch
