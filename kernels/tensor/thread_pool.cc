#include "kernels/tensor/thread_pool.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>

#include "kernels/tensor/float_mode.h"
#include "kernels/tensor/shared_loops.h"

namespace tutti::kernels {

namespace {

// How long a thread without work stays awake. Long enough for the serial pieces between two loops
// of a step (packing, a few microseconds), short against the time slice that it would take from
// another rank.
constexpr auto kSpinMax = std::chrono::microseconds(50);

// Layout of the gate: the turn's number, whether its loop is open, how many threads joined it.
constexpr std::uint64_t kJoinedMask = 0xffff;
constexpr std::uint64_t kOpen = 0x10000;
constexpr int kTurnShift = 17;

// Of the count of threads that are done: how many of them met a larger piece than before, above.
constexpr std::uint32_t kDoneMask = 0xffff;
constexpr std::uint32_t kGrew = 0x10000;

thread_local std::uint64_t shared = 0;

template <class Done>
bool spin_until(const Done& done) {
  const auto end = std::chrono::steady_clock::now() + kSpinMax;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

std::uint64_t shared_loops() { return shared; }

ThreadPool::ThreadPool(int threads, std::vector<int> cores) : cores_(std::move(cores)) {
  TUTTI_ASSERT(threads >= 1 && threads <= kThreadsMax);
  if (cores_.size() < static_cast<std::size_t>(threads)) cores_.clear();
  for (int i = 0; i < threads; ++i) scratch_.push_back(std::make_unique<Arena>());
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { serve(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  turn_.fetch_add(1);
  turn_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

// A loop is open while the caller works on it. Whoever joins in that time is waited for; a thread
// that wakes too late (its core was busy elsewhere) finds the gate closed and is not.
//
// Where a thread met a larger piece than before, a second turn follows, which all threads join:
// each makes as much room in its scratch memory, in its own node. Who takes which piece the next
// time then allocates nothing: a step does so the first time, and never again.
void ThreadPool::run(const Loop& loop) {
  if (loop.count <= 0) return;
  if (!caller_bound_ && !cores_.empty()) {
    bind_thread(cores_.front());
    caller_bound_ = true;
  }
  const FloatModeScope mode;
  if (workers_.empty() || loop.count <= loop.grain) {
    const ArenaScope scope(scratch(0));
    loop.body(loop.context, 0, 0, loop.count);
    return;
  }
  ++shared;
  TUTTI_ASSERT(!running_);
  running_ = true;
  const auto take_turn = [this](const Loop& next) {
    loop_ = next;
    next_.store(0, std::memory_order_relaxed);
    finished_.store(0, std::memory_order_relaxed);
    const std::uint32_t turn = turn_.load(std::memory_order_relaxed) + 1;
    gate_.store((std::uint64_t{turn} << kTurnShift) | kOpen, std::memory_order_release);
    turn_.store(turn);
    if (asleep_.load() > 0) turn_.notify_all();
    work(0, next);
    const auto all_joined = [this] { return (gate_.load() & kJoinedMask) == workers_.size(); };
    while (next.body == nullptr && !spin_until(all_joined)) std::this_thread::yield();
    const auto joined = static_cast<std::uint32_t>(gate_.fetch_and(~kOpen) & kJoinedMask);
    std::uint32_t done = finished_.load(std::memory_order_acquire);
    const auto all_done = [&] {
      done = finished_.load(std::memory_order_acquire);
      return (done & kDoneMask) == joined;
    };
    if (!spin_until(all_done)) {
      while (!all_done()) finished_.wait(done);
    }
    return done;
  };
  const bool grown = (take_turn(loop) & ~kDoneMask) != 0;
  if (grown || scratch(0).used_max() > scratch_.back()->used_max()) {
    std::size_t most = 0;
    for (const auto& arena : scratch_) most = std::max(most, arena->used_max());
    take_turn(Loop{.count = 0, .grain = static_cast<Index>(most)});
  }
  running_ = false;
}

// The scope is that of a piece: what a thread needs does not depend on how many it takes. A loop
// without a body makes room.
void ThreadPool::work(int thread, const Loop& loop) {
  Arena& arena = scratch(thread);
  if (loop.body == nullptr && arena.used_max() < static_cast<std::size_t>(loop.grain)) {
    const ArenaScope scope(arena);
    arena.take(static_cast<std::size_t>(loop.grain));
  }
  for (;;) {
    const Index begin = next_.fetch_add(loop.grain, std::memory_order_relaxed);
    if (begin >= loop.count) return;
    const ArenaScope scope(arena);
    loop.body(loop.context, thread, begin, std::min(begin + loop.grain, loop.count));
  }
}

bool ThreadPool::join(std::uint32_t turn) {
  std::uint64_t gate = gate_.load(std::memory_order_acquire);
  while ((gate & kOpen) != 0 && gate >> kTurnShift == turn) {
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void ThreadPool::serve(int thread) {
  const FloatModeScope mode;
  if (!cores_.empty()) bind_thread(cores_[static_cast<std::size_t>(thread)]);
  std::uint32_t seen = 0;
  while (!stop_.load()) {
    const auto changed = [this, seen] { return turn_.load() != seen; };
    if (!spin_until(changed)) {
      asleep_.fetch_add(1);
      turn_.wait(seen);
      asleep_.fetch_sub(1);
    }
    const std::uint32_t turn = turn_.load();
    if (turn == seen) continue;
    seen = turn;
    if (!join(turn)) continue;
    const std::size_t before = scratch(thread).used_max();
    work(thread, loop_);
    const bool grown = scratch(thread).used_max() > before && loop_.body != nullptr;
    finished_.fetch_add(grown ? 1 + kGrew : 1, std::memory_order_acq_rel);
    finished_.notify_one();
  }
}

}  // namespace tutti::kernels
