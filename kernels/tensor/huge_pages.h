// How much of this process's memory lies in huge pages.
//
// Transparent huge pages are advice (buffer.h): a kernel without them, or without memory in one
// piece, gives fewer than were asked for, and all works on, slower. So what was given is counted.
//
// Threads: any.
#pragma once

#include <cstddef>

namespace tutti::kernels {

struct HugePages {
  std::size_t asked = 0;  // bytes of the buffers that asked and are held now
  std::size_t given = 0;  // bytes of the process, as the kernel says
};
HugePages huge_pages();

std::size_t huge_bytes_asked();  // the first of them; kept by buffer.cc

}  // namespace tutti::kernels
