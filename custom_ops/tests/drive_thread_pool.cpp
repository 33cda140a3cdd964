// Every task of the thread pool runs once: from several callers at once, from inside a task, with
// more and fewer threads than before, and in the child of a fork.
#include "torch/thread_pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

using graphscale::torch::run_on_threads;

template <typename Body>
void run(int threads, int64_t tasks, const Body& body) {
  run_on_threads(
      threads, tasks,
      [](void* argument, int64_t task) { (*static_cast<const Body*>(argument))(task); },
      const_cast<Body*>(&body));
}

// Plain memory, one place per task: a sanitizer sees two threads at one place, or a read too early.
bool every_task_runs_once(int threads, int64_t tasks, bool nested) {
  std::vector<int> runs(static_cast<size_t>(tasks), 0);
  run(threads, tasks, [&](int64_t task) {
    if (nested) {
      std::atomic<int> inner{0};
      run(threads, 5, [&](int64_t) { ++inner; });
      if (inner != 5) return;
    }
    ++runs[static_cast<size_t>(task)];
  });
  for (const int count : runs) {
    if (count != 1) return false;
  }
  return true;
}

bool many_rounds(int rounds) {
  bool good = true;
  for (int round = 0; round < rounds; ++round) {
    good = good && every_task_runs_once(1 + round * 7 % 5, round * 5 % 23, round % 4 == 0);
  }
  return good;
}

bool several_callers() {
  std::atomic<bool> good{true};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      if (!many_rounds(300)) good = false;
    });
  }
  for (std::thread& caller : callers) caller.join();
  return good;
}

bool in_a_forked_child() {
  const pid_t child = fork();
  if (child == 0) _exit(every_task_runs_once(3, 50, false) ? 0 : 1);
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace

int main() {
  const auto check = [](bool good, const char* what) {
    if (!good) std::printf("%s: a task did not run once\n", what);
    return good ? 0 : 1;
  };
  int failures =
      check(many_rounds(2000), "one caller") + check(several_callers(), "several callers");
  failures += check(in_a_forked_child(), "the child of a fork");
  std::printf("%d failures\n", failures);
  return failures;
}
