// Waits on a condition variable by pthread's function. That of gcc 12's libstdc++ has a version of
// its own (GLIBCXX_3.4.30), without which systems with gcc 11's could not load the library.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <mutex>

namespace graphscale {

template <typename Predicate>
void wait(std::condition_variable& condition, std::unique_lock<std::mutex>& lock,
          const Predicate& predicate) {
  while (!predicate()) {
    pthread_cond_wait(condition.native_handle(), lock.mutex()->native_handle());
  }
}

}  // namespace graphscale
