// Memory for one step: handed out in order, given back all at once, so that a step allocates
// nothing after the first.
//
//   ArenaScope scope(arena);              gives back what was taken when it ends; scopes nest
//   float* x = arena.floats(rows * columns);
//
// While it is first used it grows by chunks; when it is empty again it becomes one chunk of the
// largest use seen. What was handed out never moves. Memory is not zeroed.
//
// Threads: one at a time. Units: bytes unless said.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/tensor/buffer.h"

namespace tutti::kernels {

class Arena {
 public:
  Arena() = default;
  explicit Arena(std::size_t bytes_at_start);
  Arena(Arena&&) noexcept = default;
  Arena& operator=(Arena&&) noexcept = default;

  // 64-byte aligned; valid until the scope that holds it ends, or reset().
  std::byte* take(std::size_t bytes);
  float* floats(Index count) {
    return reinterpret_cast<float*>(take(static_cast<std::size_t>(count) * sizeof(float)));
  }
  Matrix matrix(Index rows, Index columns) { return {floats(rows * columns), rows, columns}; }

  struct Mark {
    std::size_t chunk = 0;
    std::size_t used_in_chunk = 0;
    std::size_t used = 0;
  };
  Mark mark() const { return {chunk_, used_in_chunk_, used_}; }
  void release(const Mark& mark);
  void reset() { release(Mark{}); }

  std::size_t used() const { return used_; }
  std::size_t used_max() const { return used_max_; }
  std::size_t reserved() const;

 private:
  std::vector<AlignedBytes> chunks_;
  std::size_t chunk_ = 0;  // the chunk being filled
  std::size_t used_in_chunk_ = 0;
  std::size_t used_ = 0;  // over all chunks, gaps at chunk ends not counted
  std::size_t used_max_ = 0;
};

class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;
  ~ArenaScope() { arena_.release(mark_); }

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace tutti::kernels
