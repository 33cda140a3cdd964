// A list of the locks, and the functions that fork() calls.
#include "core/fork.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "core/operator.h"

namespace graphscale {
namespace {

struct Lock {
  ForkOrder order;
  void (*lock)();
  void (*unlock)();
};

constexpr size_t kMaxLocks = 16;
// Zero from the start, without a constructor: other files fill it in while the library is loaded.
std::array<Lock, kMaxLocks> locks;
size_t lock_count = 0;

void before() {
  operators();  // made once, at the first use: no child may find them half made by another thread
  for (size_t i = 0; i < lock_count; ++i) locks[i].lock();
}

void after() {
  for (size_t i = lock_count; i-- > 0;) locks[i].unlock();
}

}  // namespace

bool at_fork(ForkOrder order, void (*lock)(), void (*unlock)()) {
  if (lock_count == kMaxLocks) fail("at_fork: there are more locks than kMaxLocks");
  if (lock_count == 0) pthread_atfork(before, after, after);
  locks[lock_count++] = {order, lock, unlock};
  std::stable_sort(locks.begin(), locks.begin() + static_cast<ptrdiff_t>(lock_count),
                   [](const Lock& a, const Lock& b) { return a.order < b.order; });
  return true;
}

}  // namespace graphscale
