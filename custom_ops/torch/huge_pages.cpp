// Calls madvise(MADV_HUGEPAGE) where the system has it.
#include "torch/huge_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace graphscale::torch {
namespace {

constexpr size_t kMinBytes = size_t{4} << 20;

}  // namespace

void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(MADV_HUGEPAGE)
  if (bytes < kMinBytes) return;
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  // Whole pages inside of the block only.
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace graphscale::torch
