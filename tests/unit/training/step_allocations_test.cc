// What a whole step of the trainer allocates, operator new included: DESIGN says nothing.
#include <algorithm>

#include "kernels/tensor/buffer.h"
#include "tests/support/counted_allocations.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using test::TinyJob;

long allocated() { return test::counted_allocations() + kernels::AlignedBytes::allocations(); }

// By each of `steps` steps of one rank, after those in which its memory is made.
std::vector<long> allocated_by_steps(const TinyJob& tiny, int threads, int steps) {
  const auto job = tiny.open();
  const auto groups = test::form_group(1);
  Progress progress;
  Trainer trainer(*job, threads, progress);
  REQUIRE(trainer.enter(*groups[0], {.generation = 1, .root = tiny.checkpoints()}).ok());
  for (int step = 0; step < 2; ++step) REQUIRE(trainer.step(*groups[0], 0).ok());
  std::vector<long> by_step;
  for (int step = 0; step < steps; ++step) {
    const long before = allocated();
    const bool made = trainer.step(*groups[0], 0).ok();
    by_step.push_back(allocated() - before);
    REQUIRE(made);
  }
  return by_step;
}

}  // namespace

TEST_CASE("trainer: after the first steps a step of one rank allocates nothing") {
  for (const optimizers::Optimizer& optimizer : optimizers::optimizers()) {
    for (const int threads : {1, 3}) {
      INFO(optimizer.name << ", " << threads << " threads");
      TinyJob tiny({.micro = 1, .steps = 8});
      tiny.spec().train.optimizer.name = optimizer.name;
      CHECK(allocated_by_steps(tiny, threads, 6) == std::vector<long>(6, 0));
    }
  }
}

TEST_CASE("trainer: so does one that drops, that makes its activations again and that rounds") {
  TinyJob tiny({.steps = 8});
  tiny.spec().train.dropout = 0.1;
  tiny.spec().train.recompute = "full";
  tiny.spec().train.precision = "bf16";
  CHECK(allocated_by_steps(tiny, 2, 6) == std::vector<long>(6, 0));
}

}  // namespace tutti::training
