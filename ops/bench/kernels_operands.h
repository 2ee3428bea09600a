// Operands of cases that are to find them in memory: more of them than the caches hold, taken in
// turns.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "kernels/tensor/buffer.h"
#include "ops/bench/kernels_cases.h"

namespace tutti::bench {

// Buffers of `floats` each, to read and to write. What is read stays as it was made, in [0, 1);
// nothing is made before a case asks for it.
class Operands {
 public:
  explicit Operands(kernels::Index floats)
      : Operands(floats, sets_beyond_caches(4.0 * static_cast<double>(floats))) {}
  // So many of each: of a case that may find them in a cache.
  Operands(kernels::Index floats, kernels::Index count)
      : floats_(floats), turns_in_(count), turns_out_(count) {}

  const kernels::FloatBuffer& in() { return next(in_, turns_in_); }
  const kernels::FloatBuffer& out() { return next(out_, turns_out_); }

 private:
  const kernels::FloatBuffer& next(std::vector<kernels::FloatBuffer>& buffers, Turns& turns) {
    const std::size_t turn = turns.next();
    while (static_cast<kernels::Index>(buffers.size()) < turns.count()) {
      buffers.emplace_back(floats_);
      for (kernels::Index i = 0; i < floats_; ++i) {
        buffers.back().data()[i] = static_cast<float>(i * 7919 % 1000) * 1e-3F;
      }
    }
    return buffers[turn];
  }

  kernels::Index floats_;
  Turns turns_in_, turns_out_;
  std::vector<kernels::FloatBuffer> in_, out_;
};

// Copies of some bytes, 64-byte aligned, as many as no cache holds, or as many as are wanted; one
// after the other.
class Copies {
 public:
  Copies(const void* bytes, std::size_t size)
      : Copies(bytes, size, sets_beyond_caches(static_cast<double>(size))) {}
  Copies(const void* bytes, std::size_t size, kernels::Index count)
      : step_((size + 63) / 64 * 64),
        count_(count),
        turns_(count_),
        memory_(step_ * static_cast<std::size_t>(count_)) {
    for (kernels::Index i = 0; i < count_; ++i) {
      std::memcpy(memory_.data() + static_cast<std::size_t>(i) * step_, bytes, size);
    }
  }
  std::byte* next() { return memory_.data() + turns_.next() * step_; }
  kernels::Index count() const { return count_; }

 private:
  std::size_t step_;
  kernels::Index count_;
  Turns turns_;
  kernels::AlignedBytes memory_;
};

// `count` of what `make` prepares, each with operands of its own, run in turns; empty where it can
// prepare nothing.
inline Run in_turns(kernels::Index count, const std::function<Run()>& make) {
  std::vector<Run> runs;
  for (kernels::Index i = 0; i < count; ++i) {
    runs.push_back(make());
    if (!runs.back()) return {};
  }
  return [runs = std::move(runs), turns = Turns(count)]() mutable { runs[turns.next()](); };
}

}  // namespace tutti::bench
