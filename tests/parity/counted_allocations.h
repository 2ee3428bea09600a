// How often this binary has called operator new; arenas and buffers count their own memory
// (kernels/tensor/buffer.h).
#pragma once

namespace tutti::kernels::parity {

long counted_allocations();

}  // namespace tutti::kernels::parity
