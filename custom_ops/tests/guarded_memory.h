// Memory that detects accesses beyond its ends: at one end by an inaccessible page, which also
// catches what sanitizers miss (masked vector instructions); at the other by AddressSanitizer's
// poison.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) \
  (static_cast<void>(address), static_cast<void>(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ASAN_POISON_MEMORY_REGION(address, size)
#endif

namespace graphscale {

// Which end of a block the inaccessible page is at. kAfter leaves the block aligned to its size
// alone.
enum class Guard { kBefore, kAfter };

class GuardedMemory {
 public:
  // Filled with 0xff: NaN in every floating type.
  void* make(size_t bytes, Guard guard) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    Block block;
    block.room = (bytes + page - 1) / page * page;
    block.mapped = block.room + page;
    block.start = static_cast<unsigned char*>(
        mmap(nullptr, block.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (block.start == MAP_FAILED) std::abort();
    const bool after = guard == Guard::kAfter;
    mprotect(after ? block.start + block.room : block.start, page, PROT_NONE);
    block.usable = after ? block.start : block.start + page;
    unsigned char* const memory = after ? block.start + block.room - bytes : block.usable;
    ASAN_POISON_MEMORY_REGION(block.usable, block.room);
    ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    std::memset(memory, 0xff, bytes);
    blocks_.push_back(block);
    return memory;
  }

  GuardedMemory() = default;
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  ~GuardedMemory() {
    for (const Block& block : blocks_) {
      ASAN_UNPOISON_MEMORY_REGION(block.usable, block.room);
      munmap(block.start, block.mapped);
    }
  }

 private:
  struct Block {
    unsigned char* start;
    unsigned char* usable;
    size_t room, mapped;
  };
  std::vector<Block> blocks_;
};

}  // namespace graphscale
