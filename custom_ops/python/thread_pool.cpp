#include "python/thread_pool.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace graphscale::python {
namespace {

class ThreadPool {
 public:
  void run(int threads, int64_t tasks, void (*body)(void*, int64_t), void* argument) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (size_ < threads - 1) {
        std::thread([this, index = size_] { work(index); }).detach();
        ++size_;
      }
      body_ = body;
      argument_ = argument;
      tasks_ = tasks;
      next_ = 0;
      helpers_ = threads - 1;
      busy_ = threads - 1;
      ++round_;
    }
    wake_.notify_all();
    take_tasks();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void take_tasks() {
    for (int64_t task = next_++; task < tasks_; task = next_++) body_(argument_, task);
  }

  // The first helpers_ threads take part in a round.
  void work(int index) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return round_ != seen && index < helpers_; });
      seen = round_;
      lock.unlock();
      take_tasks();
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
  std::atomic<int64_t> next_{0};
  int64_t tasks_ = 0;
  void (*body_)(void*, int64_t) = nullptr;
  void* argument_ = nullptr;
};

std::atomic<ThreadPool*> pool{nullptr};
std::atomic<bool> in_use{false};

// The child of a fork has the caller's thread only: it starts with no pool. The parent's threads are
// never joined, so the pool is never destroyed.
void forget_pool() {
  pool = nullptr;
  in_use = false;
}

ThreadPool& the_pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  static_cast<void>(registered);
  if (pool == nullptr) pool = new ThreadPool();
  return *pool;
}

}  // namespace

void run_on_threads(int threads, int64_t tasks, void (*body)(void* argument, int64_t task),
                    void* argument) {
  const int useful = static_cast<int64_t>(threads) < tasks ? threads : static_cast<int>(tasks);
  if (useful > 1 && !in_use.exchange(true)) {
    the_pool().run(useful, tasks, body, argument);
    in_use = false;
    return;
  }
  for (int64_t task = 0; task < tasks; ++task) body(argument, task);
}

}  // namespace graphscale::python
