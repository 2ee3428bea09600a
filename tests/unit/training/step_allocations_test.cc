// What a whole step of the trainer allocates, by whatever name: DESIGN says nothing.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <numeric>
#include <thread>

#include "kernels/tensor/buffer.h"
#include "tests/support/counted_allocations.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using test::TinyJob;

long allocated() { return test::counted_allocations() + kernels::AlignedBytes::allocations(); }

struct Run {
  std::uint32_t ranks = 1;
  int threads = 1;
  int steps = 6;
  bool asks = false;  // the first rank asks for memory in each step: a test of the test
};

// By each step of all ranks together, after those in which their memory is made. Ranks of one
// process are links in memory, as those of one machine are.
std::vector<long> allocated_by_steps(const TinyJob& tiny, const Run& run) {
  constexpr int kFirst = 2;
  const auto job = tiny.open();
  const auto groups = test::form_group(run.ranks);
  std::vector<long> counts;
  counts.reserve(static_cast<std::size_t>(run.steps + 1));
  // The last to come counts, while nobody works.
  std::barrier between(run.ranks, [&]() noexcept { counts.push_back(allocated()); });
  std::atomic<int> failed{0};
  test::on_ranks(run.ranks, [&](std::uint32_t rank) {
    Progress progress;
    Trainer trainer(*job, run.threads, progress);
    bool good = trainer.enter(*groups[rank], {.generation = 1, .root = tiny.checkpoints()}).ok();
    for (int step = 0; step < kFirst; ++step) good = good && trainer.step(*groups[rank], 0).ok();
    between.arrive_and_wait();
    for (int step = 0; step < run.steps; ++step) {
      good = good && trainer.step(*groups[rank], 0).ok();
      if (run.asks && rank == 0) const kernels::FloatBuffer more(16);
      between.arrive_and_wait();
    }
    if (!good) ++failed;
  });
  REQUIRE(failed == 0);
  std::adjacent_difference(counts.begin(), counts.end(), counts.begin());
  counts.erase(counts.begin());
  return counts;
}

}  // namespace

TEST_CASE("trainer: after the first steps a step of one rank allocates nothing") {
  for (const optimizers::Optimizer& optimizer : optimizers::optimizers()) {
    for (const int threads : {1, 3}) {
      INFO(optimizer.name << ", " << threads << " threads");
      TinyJob tiny({.micro = 1, .steps = 8});
      tiny.spec().train.optimizer.name = optimizer.name;
      CHECK(allocated_by_steps(tiny, {.threads = threads}) == std::vector<long>(6, 0));
    }
  }
}

TEST_CASE(
    "trainer: nor does one of ranks that exchange through memory, control messages included") {
  for (const std::uint32_t ranks : {2U, 3U}) {
    for (const int threads : {1, 2}) {
      INFO(ranks << " ranks of " << threads << " threads");
      const TinyJob tiny({.micro = 1, .steps = 8});
      CHECK(allocated_by_steps(tiny, {.ranks = ranks, .threads = threads}) ==
            std::vector<long>(6, 0));
    }
  }
}

TEST_CASE("trainer: a rank that asks for memory in its steps is noticed") {
  const TinyJob tiny({.micro = 1, .steps = 8});
  for (const long made : allocated_by_steps(tiny, {.ranks = 2, .asks = true})) CHECK(made > 0);
}

TEST_CASE("trainer: so does one that drops, that makes its activations again and that rounds") {
  TinyJob tiny({.steps = 8});
  tiny.spec().train.dropout = 0.1;
  tiny.spec().train.recompute = "full";
  tiny.spec().train.precision = "bf16";
  for (const std::uint32_t ranks : {1U, 2U}) {
    INFO(ranks << " ranks");
    CHECK(allocated_by_steps(tiny, {.ranks = ranks, .threads = 2}) == std::vector<long>(6, 0));
  }
}

}  // namespace tutti::training
