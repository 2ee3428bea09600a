// How often this binary has asked for memory, by whatever name: malloc and its like, and operator
// new of any alignment, also where a library asks: all of it ends in the C library's allocator.
// Link counted_allocations.cc into the binary itself, not by a library: its malloc is everybody's.
#pragma once

namespace tutti::test {

long counted_allocations();

}  // namespace tutti::test
