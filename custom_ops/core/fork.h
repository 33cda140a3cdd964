// Keeps the library's locks free in the child of a fork.
//
// A child has only the thread that forked. A lock that another thread held at that moment would
// stay locked in the child for ever, and what it guards would be half changed. So fork() takes all
// of the library's locks before, and frees them in both processes after.
#pragma once

namespace graphscale {

// Locks are taken in this order: whoever holds one may take those behind it.
enum class ForkOrder {
  kPrepackedCache,
  kPrepackedWeights,
  kInnermost,
};

// Has fork() call `lock` before and `unlock` after, in both processes. Called while the library is
// loaded, for locks that are never destroyed. Returns true.
bool at_fork(ForkOrder order, void (*lock)(), void (*unlock)());

}  // namespace graphscale
