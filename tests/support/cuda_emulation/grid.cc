#include "tests/support/cuda_emulation/grid.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "protocol/base/assert.h"
#include "protocol/base/rng.h"
#include "tests/support/cuda_emulation/fiber.h"
#include "tests/support/poison.h"

namespace tutti::emulation {

using test::allow, test::forbid;

namespace {

constexpr std::size_t kMarginBytes = 1024;  // around pieces of shared memory; must keep its poison
constexpr std::size_t kMemoryBytes = 2 * kSharedBytesMax + kMarginBytes;
constexpr int kPoison = 0xff;

std::mutex order_mutex;
Order current_order;

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
  std::size_t bytes_from;
  unsigned group;
};

struct Thread {
  enum class State { ready, at_barrier, at_meeting, done };
  Fiber fiber;
  Extent index;
  unsigned number = 0;
  State state = State::ready;
  std::vector<Copy> copies;
  unsigned groups = 0;  // committed
};

struct Warp {
  unsigned first = 0;
  unsigned lanes = 0;
  std::vector<unsigned> ready;  // lanes
  unsigned met = 0;
  const char* meeting = nullptr;
  void* operands[kWarp] = {};
};

struct StaticShared {
  const void* site;
  std::size_t offset;
  std::size_t end;
};

class Block;
thread_local Block* running = nullptr;

// One host thread's block: memory and fibers are kept from launch to launch.
class Block {
 public:
  std::string run(const GridShape& shape, const std::function<void()>& body);

  Thread* now = nullptr;
  Position where;
  const std::function<void()>* body = nullptr;
  Rng rng{1};

  void leave(Thread::State state) {
    now->state = state;
    now->fiber.suspend();
  }
  Warp& warp_of(const Thread& thread) { return warps_[thread.number / kWarp]; }
  void meet(void* operand, void (*act)(void**), const char* name);
  void barrier();
  void finish_copies(Thread& thread, unsigned groups_left);
  void* static_shared(const void* site, std::size_t bytes);
  void* dynamic_shared() { return memory_.get() + kMarginBytes; }
  // Takes the text along: what the thread has on its stack is not destroyed.
  [[noreturn]] void fail(std::string what);

 private:
  void make_ready(Thread& thread) {
    thread.state = Thread::State::ready;
    Warp& warp = warp_of(thread);
    if (warp.ready.empty()) waiting_warps_.push_back(thread.number / kWarp);
    warp.ready.push_back(thread.number % kWarp);
  }
  void run_block(const Extent& block);
  void start_threads();
  Thread* next();
  void check_margins();
  std::string describe_stuck() const;
  void check_poison(std::size_t begin, std::size_t end);

  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Warp> warps_;
  std::vector<unsigned> waiting_warps_;  // those with lanes that can run
  std::vector<unsigned> rank_;           // by warp, for warp_priority
  std::unique_ptr<std::byte[]> memory_;
  std::vector<StaticShared> statics_;
  std::size_t static_end_ = 0;
  std::size_t dynamic_bytes_ = 0;
  std::size_t static_bytes_ = 0;
  std::size_t shared_max_ = 0;  // of both together
  std::size_t count_ = 0;
  std::size_t at_barrier_ = 0;
  std::size_t done_ = 0;
  Order order_;
  std::string fault_;
};

Extent unflatten(std::size_t i, const Extent& extent) {
  const auto x = static_cast<unsigned>(i % extent.x);
  const auto y = static_cast<unsigned>(i / extent.x % extent.y);
  return {x, y, static_cast<unsigned>(i / extent.x / extent.y)};
}

void thread_main(void*) {
  Block& block = *running;
  (*block.body)();
  // The compiler may keep nothing of before: the block is found anew after each suspension.
  Block& after = *running;
  after.finish_copies(*after.now, 0);
  after.now->state = Thread::State::done;
}

std::string Block::run(const GridShape& shape, const std::function<void()>& thread_body) {
  count_ = shape.threads.count();
  TUTTI_ASSERT(count_ > 0 && count_ <= kThreadsMax && shape.shared_bytes <= kSharedBytesMax);
  if (!memory_) {
    memory_ = std::make_unique<std::byte[]>(kMemoryBytes);
    std::memset(memory_.get(), kPoison, kMemoryBytes);
  }
  order_ = order();
  rng = Rng(order_.seed);
  body = &thread_body;
  dynamic_bytes_ = shape.shared_bytes;
  shared_max_ = shape.shared_room == 0 ? kSharedBytesPlain : kSharedBytesMax;
  where.threads = shape.threads;
  where.blocks = shape.blocks;
  fault_.clear();
  while (threads_.size() < count_) threads_.push_back(std::make_unique<Thread>());
  std::vector<unsigned> blocks(shape.blocks.count());
  std::iota(blocks.begin(), blocks.end(), 0U);
  for (std::size_t i = blocks.size(); i > 1; --i) {
    std::swap(blocks[i - 1], blocks[static_cast<std::size_t>(rng.below(i))]);
  }
  Block* const outer = running;
  running = this;
  forbid(memory_.get(), kMemoryBytes);
  for (const unsigned block : blocks) {
    run_block(unflatten(block, shape.blocks));
    if (!fault_.empty()) break;
  }
  running = outer;
  allow(memory_.get(), kMemoryBytes);
  // Far away from all pieces, which the blocks' own checks leave out.
  check_poison(0, kMemoryBytes);
  if (!fault_.empty()) std::memset(memory_.get(), kPoison, kMemoryBytes);
  return fault_;
}

void Block::start_threads() {
  const std::size_t warps = (count_ + kWarp - 1) / kWarp;
  warps_.resize(warps);
  waiting_warps_.clear();
  rank_.resize(warps);
  std::iota(rank_.begin(), rank_.end(), 0U);
  for (std::size_t i = warps; i > 1; --i) {
    std::swap(rank_[i - 1], rank_[static_cast<std::size_t>(rng.below(i))]);
  }
  for (std::size_t w = 0; w < warps; ++w) {
    Warp& warp = warps_[w];
    warp.first = static_cast<unsigned>(w * kWarp);
    warp.lanes = static_cast<unsigned>(std::min<std::size_t>(kWarp, count_ - w * kWarp));
    warp.ready.clear();
    warp.met = 0;
  }
  for (std::size_t i = 0; i < count_; ++i) {
    Thread& thread = *threads_[i];
    thread.index = unflatten(i, where.threads);
    thread.number = static_cast<unsigned>(i);
    thread.copies.clear();
    thread.groups = 0;
    thread.fiber.prepare(thread_main, nullptr);
    make_ready(thread);
  }
}

// The thread that runs next, or null: none can.
Thread* Block::next() {
  if (waiting_warps_.empty()) return nullptr;
  std::size_t place = 0;
  if (order_.kind == Order::Kind::random) {
    place = static_cast<std::size_t>(rng.below(waiting_warps_.size()));
  } else {
    for (std::size_t i = 1; i < waiting_warps_.size(); ++i) {
      if (rank_[waiting_warps_[i]] < rank_[waiting_warps_[place]]) place = i;
    }
  }
  Warp& warp = warps_[waiting_warps_[place]];
  const auto pick = static_cast<std::size_t>(rng.below(warp.ready.size()));
  const unsigned lane = warp.ready[pick];
  warp.ready[pick] = warp.ready.back();
  warp.ready.pop_back();
  if (warp.ready.empty()) {
    waiting_warps_[place] = waiting_warps_.back();
    waiting_warps_.pop_back();
  }
  return threads_[warp.first + lane].get();
}

void Block::run_block(const Extent& block) {
  where.block = block;
  statics_.clear();
  static_bytes_ = 0;
  static_end_ = (dynamic_bytes_ + 2 * kMarginBytes + 127) / 128 * 128;
  at_barrier_ = 0;
  done_ = 0;
  allow(dynamic_shared(), dynamic_bytes_);
  start_threads();
  while (done_ < count_ && fault_.empty()) {
    now = next();
    if (now == nullptr) {
      fault_ = describe_stuck();
      break;
    }
    now->fiber.resume();
    if (now->state == Thread::State::done) ++done_;
  }
  allow(memory_.get(), static_end_);
  if (fault_.empty()) check_margins();
  std::memset(memory_.get(), kPoison, static_end_);
  forbid(memory_.get(), static_end_);
}

std::string Block::describe_stuck() const {
  std::size_t meeting = 0;
  const char* name = "";
  for (const Warp& warp : warps_) {
    if (warp.met > 0) {
      meeting += warp.met;
      name = warp.meeting;
    }
  }
  if (meeting > 0) {
    return "deadlock: " + std::to_string(meeting) + " lanes wait at " + name +
           " for lanes of their warp that do not come";
  }
  return "deadlock: a divergent barrier: " + std::to_string(at_barrier_) + " of " +
         std::to_string(count_) + " threads wait at it, " + std::to_string(done_) + " have ended";
}

void Block::barrier() {
  if (++at_barrier_ == count_) {
    at_barrier_ = 0;
    for (std::size_t i = 0; i < count_; ++i) make_ready(*threads_[i]);
    now->fiber.suspend();
    return;
  }
  leave(Thread::State::at_barrier);
}

void Block::meet(void* operand, void (*act)(void**), const char* name) {
  Warp& warp = warp_of(*now);
  if (warp.met > 0 && warp.meeting != name) {
    fail(std::string("lanes of one warp are at ") + warp.meeting + " and at " + name);
  }
  if (warp.lanes != kWarp) fail(std::string(name) + " in a warp of fewer than 32 lanes");
  warp.meeting = name;
  warp.operands[now->number % kWarp] = operand;
  if (++warp.met < warp.lanes) {
    leave(Thread::State::at_meeting);
    return;
  }
  act(warp.operands);
  warp.met = 0;
  for (unsigned l = 0; l < warp.lanes; ++l) make_ready(*threads_[warp.first + l]);
  now->fiber.suspend();
}

void Block::finish_copies(Thread& thread, unsigned groups_left) {
  const unsigned until = thread.groups > groups_left ? thread.groups - groups_left : 0;
  std::size_t kept = 0;
  for (const Copy& copy : thread.copies) {
    if (copy.group >= until) {
      thread.copies[kept++] = copy;
      continue;
    }
    std::memcpy(copy.to, copy.from, copy.bytes_from);
    std::memset(static_cast<std::byte*>(copy.to) + copy.bytes_from, 0,
                copy.bytes - copy.bytes_from);
  }
  thread.copies.resize(kept);
}

void* Block::static_shared(const void* site, std::size_t bytes) {
  for (const StaticShared& one : statics_) {
    if (one.site == site) return memory_.get() + one.offset;
  }
  static_bytes_ += bytes;
  if (static_bytes_ > kSharedBytesPlain || static_bytes_ + dynamic_bytes_ > shared_max_) {
    fail(std::to_string(static_bytes_) + " bytes of static and " + std::to_string(dynamic_bytes_) +
         " of dynamic shared memory are more than a block has");
  }
  const std::size_t offset = static_end_;
  static_end_ = (offset + bytes + kMarginBytes + 127) / 128 * 128;
  TUTTI_ASSERT(static_end_ <= kMemoryBytes);
  statics_.push_back({site, offset, offset + bytes});
  allow(memory_.get() + offset, bytes);
  return memory_.get() + offset;
}

void Block::check_poison(std::size_t begin, std::size_t end) {
  const std::byte* const bytes = memory_.get() + begin;
  const std::size_t count = end - begin;
  // Each byte is as the one before it.
  const bool kept = count == 0 || (bytes[0] == static_cast<std::byte>(kPoison) &&
                                   std::memcmp(bytes, bytes + 1, count - 1) == 0);
  if (!kept && fault_.empty()) fault_ = "shared memory was written outside of what there is";
}

void Block::check_margins() {
  std::size_t from = kMarginBytes + dynamic_bytes_;
  check_poison(0, kMarginBytes);
  for (const StaticShared& one : statics_) {
    check_poison(from, one.offset);
    from = one.end;
  }
  check_poison(from, static_end_);
}

void Block::fail(std::string what) {
  fault_ = std::move(what);
  for (;;) leave(Thread::State::at_meeting);
}

Block& this_block() {
  TUTTI_ASSERT(running != nullptr);
  return *running;
}

}  // namespace

void set_order(const Order& order) {
  const std::lock_guard lock(order_mutex);
  current_order = order;
}

Order order() {
  const std::lock_guard lock(order_mutex);
  return current_order;
}

std::string run_grid(const GridShape& shape, const std::function<void()>& thread_body) {
  thread_local Block block;
  return block.run(shape, thread_body);
}

const Position& position() {
  Block& block = this_block();
  block.where.thread = block.now->index;
  return block.where;
}

unsigned lane() { return this_block().now->number % kWarp; }
void sync_threads() { this_block().barrier(); }
void meet_warp(void* operand, void (*act)(void**), const char* name) {
  this_block().meet(operand, act, name);
}
void* static_shared(const void* site, std::size_t bytes) {
  return this_block().static_shared(site, bytes);
}
void* dynamic_shared() { return this_block().dynamic_shared(); }

void require_aligned(const void* address, std::size_t bytes, const char* what) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes == 0) return;
  this_block().fail(std::string(what) + " of an address that is not a multiple of " +
                    std::to_string(bytes));
}

void copy_async(void* to, const void* from, std::size_t bytes, std::size_t bytes_from) {
  require_aligned(to, bytes, "cp.async");
  require_aligned(from, bytes, "cp.async");
  Block& block = this_block();
  Thread& thread = *block.now;
  thread.copies.push_back({to, from, bytes, bytes_from, thread.groups});
  if (block.rng.below(2) == 0) {
    const Copy copy = thread.copies.back();
    thread.copies.pop_back();
    std::memcpy(copy.to, copy.from, copy.bytes_from);
    std::memset(static_cast<std::byte*>(copy.to) + copy.bytes_from, 0,
                copy.bytes - copy.bytes_from);
  }
}

void commit_copies() { ++this_block().now->groups; }
void wait_copies(unsigned groups) {
  Block& block = this_block();
  block.finish_copies(*block.now, groups);
}
void fault(const std::string& what) { this_block().fail(what); }

}  // namespace tutti::emulation
