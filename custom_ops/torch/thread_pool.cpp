// GNU OpenMP's team where torch has loaded it, else a pool of detached threads that sleep between
// rounds.
#include "torch/thread_pool.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "core/wait.h"

namespace graphscale::torch {
namespace {

struct Tasks {
  void (*body)(void* argument, int64_t task);
  void* argument;
  int64_t count;
  std::atomic<int64_t> next{0};

  static void take(void* self) {
    Tasks& tasks = *static_cast<Tasks*>(self);
    for (int64_t task = tasks.next++; task < tasks.count; task = tasks.next++) {
      tasks.body(tasks.argument, task);
    }
  }
};

class ThreadPool {
 public:
  void run(int threads, Tasks& tasks) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      // A round: publish the tasks, wake the helpers, work along, wait for the last of them.
      while (size_ < threads - 1) {
        std::thread([this, index = size_] { work(index); }).detach();
        ++size_;
      }
      tasks_ = &tasks;
      helpers_ = threads - 1;
      busy_ = threads - 1;
      ++round_;
    }
    wake_.notify_all();
    Tasks::take(&tasks);
    std::unique_lock<std::mutex> lock(mutex_);
    wait(done_, lock, [this] { return busy_ == 0; });
  }

 private:
  // The first helpers_ threads take part in a round.
  void work(int index) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wait(wake_, lock, [&] { return round_ != seen && index < helpers_; });
      seen = round_;
      Tasks* const tasks = tasks_;
      lock.unlock();
      Tasks::take(tasks);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  int size_ = 0;
  int helpers_ = 0;
  int busy_ = 0;
  uint64_t round_ = 0;
  Tasks* tasks_ = nullptr;
};

std::atomic<ThreadPool*> pool{nullptr};
std::atomic<bool> in_use{false};
std::atomic<bool> forked{false};

// The child of a fork has the caller's thread only: it starts with no pool. The parent's threads
// are never joined, so the pool is never destroyed.
void forget_threads() {
  pool = nullptr;
  in_use = false;
  forked = true;
}

using OpenMp = void (*)(void (*body)(void*), void* argument, unsigned threads, unsigned flags);

// The function that compilers call for "#pragma omp parallel", in the OpenMP library that torch has
// loaded. Its threads stay awake between torch's operators and would compete with other threads.
OpenMp openmp() {
  static const auto found = reinterpret_cast<OpenMp>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return found;
}

// Looks for OpenMP before a fork, or a child could find another thread's search half done.
[[maybe_unused]] const int forks = pthread_atfork([] { openmp(); }, nullptr, forget_threads);

}  // namespace

void run_on_threads(int threads, int64_t tasks, void (*body)(void* argument, int64_t task),
                    void* argument) {
  Tasks work{body, argument, tasks};
  if (threads <= 1 || tasks <= 1) return Tasks::take(&work);
  // The team always has the same size: OpenMP ends the threads that a smaller team does not use.
  if (openmp() != nullptr && !forked) {
    return openmp()(Tasks::take, &work, static_cast<unsigned>(threads), 0);
  }
  if (in_use.exchange(true)) return Tasks::take(&work);
  if (pool == nullptr) pool = new ThreadPool();
  pool.load()->run(static_cast<int64_t>(threads) < tasks ? threads : static_cast<int>(tasks), work);
  in_use = false;
}

}  // namespace graphscale::torch
