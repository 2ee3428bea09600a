// Where a rank is in its step, for the progress reports of another thread.
//
// Threads: written by the computing thread, read by any.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

namespace tutti::training {

enum class Phase : std::uint8_t {
  loading,
  connecting,
  copying,
  forward,
  exchange,
  update,
  checkpoint,
  serving,    // nothing is asked
  answering,  // requests are open
  idle
};

constexpr std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::loading: return "loading";
    case Phase::connecting: return "connecting";
    case Phase::copying: return "copying";
    case Phase::forward: return "forward";
    case Phase::exchange: return "exchange";
    case Phase::update: return "update";
    case Phase::checkpoint: return "checkpoint";
    case Phase::serving: return "serving";
    case Phase::answering: return "answering";
    case Phase::idle: return "idle";
  }
  return "idle";
}

struct Progress {
  std::atomic<Phase> phase{Phase::idle};
  std::atomic<std::uint64_t> step{0};  // being made, or made last
  std::atomic<std::uint64_t> compute_us{
      0};  // of a shard of the last step, without waiting for others

  void enter(Phase next) { phase.store(next, std::memory_order_relaxed); }
};

}  // namespace tutti::training
