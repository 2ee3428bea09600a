// Twenty steps of training have the bits that are committed, on every path and thread count: a run
// may move between CPUs.
#include "kernels/ops/cpu_path.h"
#include "tests/golden/portable.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

constexpr int kThreads[] = {1, 2, 3, 4, 7};

// The weight hash after each step.
std::vector<kernels::Hash128> hashes_of_run(
    const test::TinyJob& tiny, int threads,
    std::optional<kernels::Rounding> rounding = std::nullopt) {
  const auto job = tiny.open();
  const auto groups = test::form_group(1);
  Progress progress;
  Trainer trainer(*job, threads, progress, nullptr, rounding);
  REQUIRE(trainer.enter(*groups[0], {.generation = 1, .root = tiny.checkpoints()}).ok());
  std::vector<kernels::Hash128> hashes;
  while (trainer.state().step < job->last_step()) {
    const auto outcome = trainer.step(*groups[0], 0);
    REQUIRE(outcome.ok());
    hashes.push_back(outcome->record.weights);
  }
  return hashes;
}

}  // namespace

TEST_CASE("portable profile: twenty training steps have the committed bits on every path") {
  const test::TinyJob tiny({.batch = 8, .shards = 4, .steps = 20});
  const kernels::CpuPath before = kernels::cpu_path();
  for (const kernels::CpuPath path : kernels::kCpuPaths) {
    if (!kernels::choose_cpu_path(path)) continue;  // tests/parity says which
    for (const int threads : kThreads) {
      INFO("path " << kernels::to_string(path) << ", threads " << threads);
      test::Golden golden("training, 20 steps");
      for (const kernels::Hash128& hash : hashes_of_run(tiny, threads)) golden.add(hash);
      golden.check();
    }
  }
  REQUIRE(kernels::choose_cpu_path(before));
}

// Widened on every path; a native arithmetic on the one that has it.
TEST_CASE("bf16 profiles: twenty training steps have the committed bits") {
  const test::TinyJob tiny({.batch = 8, .shards = 4, .steps = 20});
  const kernels::CpuPath before = kernels::cpu_path();
  for (const kernels::CpuPath path : kernels::kCpuPaths) {
    if (!kernels::choose_cpu_path(path)) continue;
    for (const auto arithmetic : {kernels::Bf16Arithmetic::widened, kernels::Bf16Arithmetic::native,
                                  kernels::Bf16Arithmetic::tiles}) {
      if (!kernels::has_bf16(arithmetic)) continue;
      for (const int threads : kThreads) {
        INFO("path " << kernels::to_string(path) << ", threads " << threads);
        test::Golden golden("training, 20 steps, profile " +
                            std::string(kernels::profile_of(arithmetic)));
        for (const auto& hash : hashes_of_run(tiny, threads, arithmetic)) golden.add(hash);
        golden.check();
      }
    }
  }
  REQUIRE(kernels::choose_cpu_path(before));
}

// With a scale that the first steps are skipped for.
TEST_CASE("fp16 profile: twenty training steps have the committed bits on every path") {
  test::TinyJob tiny({.batch = 8, .shards = 4, .steps = 20});
  tiny.spec().train.precision = "fp16";
  tiny.spec().train.scaling.first = 32768;
  const kernels::CpuPath before = kernels::cpu_path();
  for (const kernels::CpuPath path : kernels::kCpuPaths) {
    if (!kernels::choose_cpu_path(path)) continue;
    for (const int threads : kThreads) {
      INFO("path " << kernels::to_string(path) << ", threads " << threads);
      test::Golden golden("training, 20 steps, profile portable-fp16");
      for (const auto& hash : hashes_of_run(tiny, threads, kernels::Fp16Arithmetic{})) {
        golden.add(hash);
      }
      golden.check();
    }
  }
  REQUIRE(kernels::choose_cpu_path(before));
}

}  // namespace tutti::training
