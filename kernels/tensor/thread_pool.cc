#include "kernels/tensor/thread_pool.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>

#include "kernels/tensor/float_mode.h"

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
  TUTTI_ASSERT(!running_);
  running_ = true;
  loop_ = loop;
  next_.store(0, std::memory_order_relaxed);
  finished_.store(0, std::memory_order_relaxed);
  const std::uint32_t turn = turn_.load(std::memory_order_relaxed) + 1;
  gate_.store((std::uint64_t{turn} << kTurnShift) | kOpen, std::memory_order_release);
  turn_.store(turn);
  if (asleep_.load() > 0) turn_.notify_all();
  work(0, loop);
  const auto joined = static_cast<std::uint32_t>(gate_.fetch_and(~kOpen) & kJoinedMask);
  const auto all_done = [&] { return finished_.load(std::memory_order_acquire) == joined; };
  if (!spin_until(all_done)) {
    for (std::uint32_t done = finished_.load(); done != joined; done = finished_.load()) {
      finished_.wait(done);
    }
  }
  running_ = false;
}

void ThreadPool::work(int thread, const Loop& loop) {
  const ArenaScope scope(scratch(thread));
  for (;;) {
    const Index begin = next_.fetch_add(loop.grain, std::memory_order_relaxed);
    if (begin >= loop.count) return;
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
    work(thread, loop_);
    finished_.fetch_add(1, std::memory_order_acq_rel);
    finished_.notify_one();
  }
}

}  // namespace tutti::kernels
