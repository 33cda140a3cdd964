// Huge pages for memory of many MB: the first access to memory costs time per page, so fewer pages
// cost less.
#pragma once

#include <cstddef>

namespace graphscale::torch {

// Asks the system for huge pages where the memory is large enough; does nothing where it has none.
void prefer_huge_pages(void* memory, size_t bytes);

}  // namespace graphscale::torch
