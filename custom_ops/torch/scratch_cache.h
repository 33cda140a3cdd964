// Scratch memory for calls from Python, kept between calls: memory fresh from the system costs a
// page fault for every 4 KiB, which for a convolution's spectra is as much as the convolution.
#pragma once

#include <cstddef>

namespace graphscale::torch {

// Aligned to 64 bytes; null when there is none left. From any thread.
void* take_scratch(size_t bytes);

// Keeps what take_scratch gave for a later call, as long as not more than some hundred MiB lie
// idle.
void return_scratch(void* memory);

}  // namespace graphscale::torch
