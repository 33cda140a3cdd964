// Large pages for memory of many MB: what a first touch of it costs is by the page.
#pragma once

#include <cstddef>

namespace graphscale::torch {

// Asks for them where the memory is large enough; nothing happens where there are none.
void prefer_huge_pages(void* memory, size_t bytes);

}  // namespace graphscale::torch
