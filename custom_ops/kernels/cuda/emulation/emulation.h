// Runs the blocks of CUDA kernels on the host: each thread of a block is a fiber that runs until it
// waits for the others. Shared memory is filled with not-a-number at first, is as small as a GPU's,
// and is followed by an inaccessible page. With GRAPHSCALE_EMULATION_REVERSED set, threads and
// blocks run in the opposite order: where the results then differ, a barrier is missing.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace graphscale::cuda {

inline bool emulate_reversed() {
  const char* const value = std::getenv("GRAPHSCALE_EMULATION_REVERSED");
  return value != nullptr && *value != '\0';
}

// The limits of a block on sm_90.
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxSharedBytes = 227 * 1024;

// Memory whose end, up to its alignment, is the end of what may be touched.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes) : bytes_((bytes + 15) / 16 * 16) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t pages = (bytes_ + page - 1) / page * page;
    mapped_ = pages + page;
    start_ = static_cast<unsigned char*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start_ == MAP_FAILED || mprotect(start_ + pages, page, PROT_NONE) != 0) std::abort();
    memory_ = start_ + pages - bytes_;
  }
  ~SharedMemory() { munmap(start_, mapped_); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void forget() { std::memset(memory_, 0xff, bytes_); }
  void* get() { return memory_; }

 private:
  size_t bytes_, mapped_;
  unsigned char* start_;
  unsigned char* memory_;
};

class BlockEmulator {
 public:
  BlockEmulator(int threads, size_t shared_bytes)
      : fibers_(static_cast<size_t>(threads)),
        shared_(shared_bytes),
        reversed_(emulate_reversed()) {
    for (Fiber& fiber : fibers_) fiber.stack.reset(new char[kStackBytes]);  // not cleared: large
    warps_.resize((fibers_.size() + 31) / 32);
  }

  // body(thread) for all threads of one block.
  template <typename Body>
  void run(const Body& body) {
    shared_.forget();
    body_ = [](BlockEmulator& self, int thread) {
      (*static_cast<const Body*>(self.argument_))(thread);
    };
    argument_ = &body;
    for (size_t i = 0; i < fibers_.size(); ++i) start(i);
    while (step()) {
    }
  }

  void* shared() { return shared_.get(); }
  void wait_for_block() { wait(State::kAtBlock); }

  // The values of all lanes, in their order; valid until the next exchange but one.
  template <typename T>
  const T* exchange(int thread, const T& mine) {
    static_assert(sizeof(T) <= kExchangeBytes);
    Fiber& fiber = fibers_[static_cast<size_t>(thread)];
    fiber.odd = !fiber.odd;
    T* const slots =
        reinterpret_cast<T*>(warps_[static_cast<size_t>(thread / 32)].slots[fiber.odd]);
    std::memcpy(slots + thread % 32, &mine, sizeof(T));
    wait(State::kAtWarp);
    return slots;
  }

 private:
  static constexpr size_t kStackBytes = 128 * 1024;
  static constexpr size_t kExchangeBytes = 32;
  enum class State { kReady, kAtBlock, kAtWarp, kDone };
  // A fiber is entered by a ucontext at first, and by jumps later: without system calls these are
  // fifty times faster.
  struct Fiber {
    std::unique_ptr<char[]> stack;
    ucontext_t context;
    jmp_buf here;
    bool entered = false;
    bool odd = false;  // which of the warp's slots the last exchange used
    State state = State::kDone;
  };
  struct Warp {
    alignas(16) unsigned char slots[2][32 * kExchangeBytes];
  };

  void start(size_t i) {
    Fiber& fiber = fibers_[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    fiber.entered = fiber.odd = false;
    fiber.state = State::kReady;
    const auto self = reinterpret_cast<uintptr_t>(this);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(&BlockEmulator::enter), 3,
                static_cast<unsigned>(self >> 32), static_cast<unsigned>(self),
                static_cast<int>(i));
  }

  static void enter(unsigned high, unsigned low, int thread) {
    auto* const self = reinterpret_cast<BlockEmulator*>((static_cast<uintptr_t>(high) << 32) | low);
    self->body_(*self, thread);
    self->fibers_[static_cast<size_t>(thread)].state = State::kDone;
    _longjmp(self->scheduler_, 1);
  }

  __attribute__((noinline)) void resume(Fiber& fiber) {
    if (_setjmp(scheduler_) != 0) return;
    if (fiber.entered) _longjmp(fiber.here, 1);
    fiber.entered = true;
    setcontext(&fiber.context);
  }

  __attribute__((noinline)) void wait(State state) {
    fibers_[current_].state = state;
    if (_setjmp(fibers_[current_].here) == 0) _longjmp(scheduler_, 1);
  }

  // Runs every thread that need not wait; returns false when all are done.
  bool step() {
    for (size_t i = 0; i < fibers_.size(); ++i) {
      current_ = reversed_ ? fibers_.size() - 1 - i : i;
      if (fibers_[current_].state == State::kReady) resume(fibers_[current_]);
    }
    // All fibers wait or are done: first warps whose lanes wait for each other go on, then the
    // block.
    bool released = false;
    for (size_t begin = 0; begin < fibers_.size(); begin += 32) {
      released |= release(State::kAtWarp, begin, std::min(begin + 32, fibers_.size()));
    }
    if (!released) released = release(State::kAtBlock, 0, fibers_.size());
    if (released) return true;
    for (const Fiber& fiber : fibers_) {
      if (fiber.state != State::kDone) {
        std::fputs("emulated CUDA block: its threads wait for each other at different places\n",
                   stderr);
        std::abort();
      }
    }
    return false;
  }

  // Where all threads that are not done wait at the barrier, they go on.
  bool release(State state, size_t begin, size_t end) {
    bool any = false;
    for (size_t i = begin; i < end; ++i) {
      if (fibers_[i].state == State::kDone) continue;
      if (fibers_[i].state != state) return false;
      any = true;
    }
    for (size_t i = begin; i < end && any; ++i) {
      if (fibers_[i].state == state) fibers_[i].state = State::kReady;
    }
    return any;
  }

  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  SharedMemory shared_;
  jmp_buf scheduler_;
  size_t current_ = 0;
  bool reversed_;
  void (*body_)(BlockEmulator&, int) = nullptr;
  const void* argument_ = nullptr;
};

// The interface of Block on a GPU.
class Block {
 public:
  Block(BlockEmulator& emulator, int64_t index, int thread)
      : emulator_(emulator), index_(index), thread_(thread) {}
  int thread() const { return thread_; }
  int64_t index() const { return index_; }
  template <typename T>
  T* shared() const {
    return static_cast<T*>(emulator_.shared());
  }
  void sync() const { emulator_.wait_for_block(); }
  uint32_t ballot(bool vote) const {
    const bool* const votes = emulator_.exchange(thread_, vote);
    uint32_t bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= static_cast<uint32_t>(votes[lane]) << lane;
    return bits;
  }
  template <typename T>
  T shuffle_xor(T value, int mask) const {
    return emulator_.exchange(thread_, value)[(thread_ % 32) ^ mask];
  }
  void load_matrices(const uint32_t* row, uint32_t (&to)[4]) const {
    const uint32_t* const* const rows = emulator_.exchange(thread_, row);
    const int lane = thread_ % 32;
    for (int i = 0; i < 4; ++i) to[i] = rows[i * 8 + lane / 4][lane % 4];
  }
  void multiply_add(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) const {
    multiply_words(sum, a, b, [](uint32_t left, uint32_t right) {
      return read_tf32(left) * read_tf32(right);
    });
  }
  void multiply_add_halves(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) const {
    multiply_words(sum, a, b, [](uint32_t left, uint32_t right) {
      return read_half(left) * read_half(right) + read_half(left >> 16) * read_half(right >> 16);
    });
  }

 private:
  // The fragments as the PTX manual lays them out over the lanes of a warp: 16 x 8 and 8 x 8 words.
  template <typename Product>
  void multiply_words(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                      const Product& product) const {
    struct Operands {
      uint32_t a[4], b[2];
    };
    Operands mine;
    std::memcpy(mine.a, a, sizeof(a));
    std::memcpy(mine.b, b, sizeof(b));
    const Operands* const all = emulator_.exchange(thread_, mine);
    const int lane = thread_ % 32;
    for (int i = 0; i < 4; ++i) {
      // This lane's number i of the result, from the operands of all lanes.
      const int row = lane / 4 + (i / 2) * 8;
      const int column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < 8; ++k) {
        const uint32_t left = all[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2];
        const uint32_t right = all[column * 4 + k % 4].b[k / 4];
        sum[i] += product(left, right);
      }
    }
  }
  static float read_tf32(uint32_t bits) {
    bits &= ~0x1fffu;  // tensor cores ignore the other bits
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  static float read_half(uint32_t bits) {
    Float16 half;
    half.bits = static_cast<uint16_t>(bits);
    return half;
  }

  BlockEmulator& emulator_;
  int64_t index_;
  int thread_;
};

}  // namespace graphscale::cuda
