// Scratch memory for calls from Python, kept between calls: memory fresh from the system costs a
// page fault for every 4 KiB, which for a convolution's spectra is as much as the convolution.
#pragma once

#include <cstddef>

namespace graphscale::torch {

// Memory aligned to 64 bytes; null where none is left. May be called from any thread.
void* take_scratch(size_t bytes);

// Takes memory of take_scratch back for a later call, or frees it where some hundred MiB lie idle.
void return_scratch(void* memory);

}  // namespace graphscale::torch
