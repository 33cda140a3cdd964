// Threads for calls from Python: torch's own where it runs on GNU's OpenMP; else threads that are
// made when first needed, asleep between calls, and remade after a fork.
#pragma once

#include <cstdint>

namespace graphscale::torch {

// Calls body(argument, task) for every task in [0, tasks) on at most `threads` threads, one of
// which is the caller's; returns when all are done. A call from inside a task, or while another
// thread uses the threads made here, runs on the caller's thread alone.
void run_on_threads(int threads, int64_t tasks, void (*body)(void* argument, int64_t task),
                    void* argument);

}  // namespace graphscale::torch
