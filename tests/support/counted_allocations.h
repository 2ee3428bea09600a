// How often this binary has called operator new; arenas and buffers count their own memory
// (kernels/tensor/buffer.h). Link counted_allocations.cc into the binary itself, not by a library.
#pragma once

namespace tutti::test {

long counted_allocations();

}  // namespace tutti::test
