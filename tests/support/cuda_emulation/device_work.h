// How work comes onto the emulated device's streams: grids, with what their arguments hold, and
// anything else; and what the device says when something went wrong.
//
// Threads: any. Included by cuda_runtime.h, which says what streams and errors are.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/support/cuda_emulation/grid.h"

namespace tutti::emulation {

// Puts a grid into the stream, if a device would take it; `name` is for the message of a fault.
struct GridLaunch {
  const char* name;
  const void* kernel;  // what cudaFuncSetAttribute knows it by
  GridShape shape;
  std::vector<std::uintptr_t> words = {};  // of its arguments, where an address may stand
};
// Of an argument: itself, or all words of a structure, without what lies between its members.
// Behind an array of sixteen structures GCC 12 clears the wrong bytes: gaps must not stand there,
// what is in them may look like an address.
template <class T>
void add_words(std::vector<std::uintptr_t>& words, T argument) {
  if constexpr (std::is_pointer_v<T> || std::is_class_v<T>) {
    __builtin_clear_padding(&argument);
    for (std::size_t at = 0; at + sizeof(std::uintptr_t) <= sizeof(T); at += alignof(void*)) {
      std::uintptr_t word = 0;
      std::memcpy(&word, reinterpret_cast<const char*>(&argument) + at, sizeof(word));
      words.push_back(word);
    }
  }
}
cudaError_t enqueue_grid(cudaStream_t stream, const GridLaunch& launch,
                         std::function<void()> thread_body);
// Any work; a text that it returns is a fault of the device.
void enqueue(cudaStream_t stream, std::function<std::string()> work);
// What the device's first fault said; empty: none. clear_fault(): it is usable again.
std::string device_fault();
void clear_fault();

}  // namespace tutti::emulation
