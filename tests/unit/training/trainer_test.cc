#include "jobs/training/trainer.h"

#include <sched.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <thread>

#include "kernels/tensor/buffer.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using test::TinyJob;
using test::TinyOptions;

struct RunOptions {
  std::uint32_t ranks = 1;
  int threads = 1;
  std::optional<kernels::Bf16Arithmetic> rounding = {};
};

// The step records of an undisturbed run, as rank 0 sees them; all ranks must see the same weights.
std::vector<StepRecord> run(const TinyJob& tiny, const RunOptions& options) {
  const auto job = tiny.open();
  std::vector<std::vector<StepRecord>> records(options.ranks);
  std::vector<std::string> failures(options.ranks);
  const auto groups = test::form_group(options.ranks);
  test::on_ranks(options.ranks, [&](std::uint32_t rank) {
    Progress progress;
    Trainer trainer(*job, options.threads, progress, nullptr, options.rounding);
    auto entered = trainer.enter(*groups[rank], {.generation = 1, .root = tiny.checkpoints()});
    if (!entered) failures[rank] = entered.error().message;
    while (entered && trainer.state().step < job->last_step()) {
      auto outcome = trainer.step(*groups[rank], 0);
      if (!outcome) {
        failures[rank] = outcome.error().message;
        return;
      }
      records[rank].push_back(outcome->record);
    }
  });
  for (std::uint32_t rank = 0; rank < options.ranks; ++rank) {
    CHECK(failures[rank].empty());
    REQUIRE(records[rank].size() == job->last_step());
    for (std::size_t i = 0; i < records[rank].size(); ++i) {
      CHECK(records[rank][i].weights == records[0][i].weights);
    }
  }
  return records[0];
}

void check_same(const std::vector<StepRecord>& a, const std::vector<StepRecord>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].step == b[i].step);
    CHECK(a[i].loss == b[i].loss);
    CHECK(a[i].grad_norm == b[i].grad_norm);
    CHECK(a[i].tokens == b[i].tokens);
    CHECK(kernels::to_string(a[i].weights) == kernels::to_string(b[i].weights));
  }
}

TEST_CASE(
    "trainer: weights, loss and norm have the same bits for any ranks, threads and micro-batch") {
  const std::vector<StepRecord> expected = run(TinyJob({.micro = 1}), {});
  CHECK(expected.front().loss == Approx(3.87).margin(0.3));  // near log 48
  CHECK(expected.back().loss < expected.front().loss);
  for (const std::uint32_t micro : {0U, 2U}) {
    const TinyJob tiny({.micro = micro});
    for (const std::uint32_t ranks : {1U, 2U, 3U, 4U}) {
      CAPTURE(micro, ranks);
      check_same(run(tiny, {.ranks = ranks}), expected);
    }
  }
  check_same(run(TinyJob(), {.ranks = 2, .threads = 2}), expected);
  for (const int threads : {2, 3, 4, 7}) check_same(run(TinyJob(), {.threads = threads}), expected);
}

TEST_CASE("trainer: shards without samples change nothing, for ranks that have none at all") {
  const TinyJob tiny({.batch = 3, .shards = 8});
  const std::vector<StepRecord> expected = run(tiny, {});
  check_same(run(tiny, {.ranks = 4}), expected);
}

TEST_CASE("trainer: the number of shards is part of the numerics, the number of ranks is not") {
  const auto eight = run(TinyJob({.batch = 8, .shards = 8, .steps = 1}), {});
  const auto two = run(TinyJob({.batch = 8, .shards = 2, .steps = 1}), {});
  CHECK(eight[0].loss == Approx(two[0].loss));
  CHECK_FALSE(eight[0].weights == two[0].weights);
}

TEST_CASE("trainer: padded rows of the head change no loss, norm or hash, on 1 and 2 ranks") {
  for (const bool tied : {true, false}) {
    TinyJob tiny({.steps = 3});
    tiny.spec().model.tied = tied;
    const auto plain = run(tiny, {});
    tiny.spec().train.pad_vocabulary = 64;
    REQUIRE(tiny.open()->decoder.description().vocabulary_rows() == 64);
    check_same(run(tiny, {}), plain);
    check_same(run(tiny, {.ranks = 2}), plain);
  }
}

namespace {

void make_family(TinyJob& tiny, std::string_view family) {
  tiny.spec().model.family = family;
  tiny.spec().model.kv_heads = family == "gpt2" ? 2 : 1;
  tiny.spec().model.layers = 3;
}

}  // namespace

TEST_CASE("trainer: recompute changes no loss, norm or hash, in each family, dropout and profile") {
  const std::string_view family = GENERATE("llama", "gpt2");
  const double dropout = GENERATE(0.0, 0.2);
  for (const auto rounding :
       {std::optional<kernels::Bf16Arithmetic>(), std::optional(kernels::fastest_bf16())}) {
    TinyJob tiny({.steps = 3});
    make_family(tiny, family);
    tiny.spec().train.dropout = dropout;
    const auto kept = run(tiny, {.rounding = rounding});
    for (const char* const recompute : {"selective", "full"}) {
      INFO(family << ", dropout " << dropout << ", " << recompute << ", "
                  << profile_on_cpu(rounding));
      tiny.spec().train.recompute = recompute;
      check_same(run(tiny, {.rounding = rounding}), kept);
      check_same(run(tiny, {.ranks = 2, .threads = 2, .rounding = rounding}), kept);
    }
  }
}

TEST_CASE(
    "trainer: dropout is the same for any ranks and micro-batch, and other steps drop others") {
  TinyJob tiny({.micro = 1, .steps = 3});
  const auto plain = run(tiny, {});
  tiny.spec().train.dropout = 0.1;
  const auto dropped = run(tiny, {});
  CHECK(dropped[0].loss != plain[0].loss);
  for (const std::uint32_t micro : {0U, 2U}) {
    tiny.spec().train.micro = micro;
    check_same(run(tiny, {.ranks = 3}), dropped);
  }
  tiny.spec().train.optimizer.rate = 0;  // the weights stay
  tiny.spec().data.shuffle = false;
  tiny.spec().data.sequence = 299;  // an epoch is one step: all see the same samples
  tiny.spec().train.batch = 10;
  const auto still = run(tiny, {});
  CHECK(still[0].loss != still[1].loss);
  tiny.spec().train.dropout = 0;
  const auto even = run(tiny, {});
  CHECK(even[0].loss == even[1].loss);
}

TEST_CASE("trainer: in bf16 steps are the same for any ranks and threads, in each arithmetic") {
  for (const auto arithmetic : {kernels::Bf16Arithmetic::widened, kernels::Bf16Arithmetic::native,
                                kernels::Bf16Arithmetic::tiles}) {
    if (!kernels::has_bf16(arithmetic)) continue;
    INFO(kernels::profile_of(arithmetic));
    const TinyJob tiny;
    const auto expected = run(tiny, {.rounding = arithmetic});
    CHECK(expected.back().profile == kernels::profile_of(arithmetic));
    check_same(run(tiny, {.ranks = 2, .threads = 3, .rounding = arithmetic}), expected);
    check_same(run(tiny, {.ranks = 4, .rounding = arithmetic}), expected);
    CHECK(run(tiny, {}).back().weights != expected.back().weights);
  }
}

TEST_CASE("trainer: in bf16, the micro-batch is free where it is of whole groups of the sum") {
  for (const auto& [arithmetic, sequence] : {std::pair(kernels::Bf16Arithmetic::widened, 11U),
                                             std::pair(kernels::Bf16Arithmetic::native, 12U),
                                             std::pair(kernels::Bf16Arithmetic::tiles, 32U)}) {
    if (!kernels::has_bf16(arithmetic)) continue;
    INFO(kernels::profile_of(arithmetic));
    const auto run_in = [&, arithmetic = arithmetic, sequence = sequence](std::uint32_t micro) {
      TinyJob tiny({.batch = 6, .shards = 2, .micro = micro});
      tiny.spec().data.sequence = sequence;
      return run(tiny, {.rounding = arithmetic});
    };
    check_same(run_in(1), run_in(3));
  }
}

TEST_CASE("trainer: a run in bf16 is near the one in fp32, and learns") {
  TinyJob tiny({.batch = 8, .shards = 4, .steps = 30});
  const auto exact = run(tiny, {});
  for (const auto arithmetic : {kernels::Bf16Arithmetic::widened, kernels::fastest_bf16()}) {
    INFO(kernels::profile_of(arithmetic));
    const auto coarse = run(tiny, {.rounding = arithmetic});
    // Inputs of products have 8 bits; the first steps have the same weights, nearly.
    for (std::size_t i = 0; i < 4; ++i) {
      CHECK(std::abs(coarse[i].loss / exact[i].loss - 1.0) < 0x1p-8);
      CHECK(std::abs(coarse[i].grad_norm / exact[i].grad_norm - 1.0) < 0x1p-5);
    }
    CHECK(coarse[0].loss != exact[0].loss);
    CHECK(coarse.back().loss < 0.7 * coarse.front().loss);
  }
}

TEST_CASE("trainer: after the first step a step takes no memory for tensors or scratch") {
  for (const int threads : {1, 2, 3, 4, 7}) {
    INFO(threads << " threads");
    TinyJob tiny({.steps = 20});
    if (threads > 2) tiny.spec().train.recompute = threads == 3 ? "selective" : "full";
    const auto job = tiny.open();
    const auto groups = test::form_group(1);
    Progress progress;
    Trainer trainer(*job, threads, progress);
    REQUIRE(trainer.enter(*groups[0], {.generation = 1, .root = tiny.checkpoints()}).ok());
    const auto taken_by_a_step = [&] {
      const long before = kernels::AlignedBytes::allocations();
      REQUIRE(trainer.step(*groups[0], 0).ok());
      return kernels::AlignedBytes::allocations() - before;
    };
    CHECK(taken_by_a_step() > 0);
    for (std::uint64_t step = 2; step <= 20; ++step) {
      INFO("step " << step);
      CHECK(taken_by_a_step() == 0);
    }
  }
}

TEST_CASE("trainer: its thread is on its first core before its memory is made") {
  const TinyJob tiny;
  const auto job = tiny.open();
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  std::size_t core = 0;
  while (!CPU_ISSET(core, &allowed)) ++core;
  ::setenv("TUTTI_CORES", std::to_string(core).c_str(), 1);
  cpu_set_t bound;
  CPU_ZERO(&bound);
  // In a thread of its own, which then ends.
  std::thread([&] {
    Progress progress;
    const Trainer trainer(*job, 1, progress);
    CHECK(::sched_getaffinity(0, sizeof bound, &bound) == 0);
  }).join();
  ::unsetenv("TUTTI_CORES");
  CHECK(CPU_COUNT(&bound) == 1);
  CHECK(CPU_ISSET(core, &bound));
}

TEST_CASE("trainer: flags raised by one rank reach all after the same step") {
  const TinyJob tiny;
  const auto job = tiny.open();
  const auto groups = test::form_group(3);
  std::vector<std::uint64_t> seen(3);
  test::on_ranks(3, [&](std::uint32_t rank) {
    Progress progress;
    Trainer trainer(*job, 1, progress);
    if (!trainer.enter(*groups[rank], {.generation = 1, .root = tiny.checkpoints()})) return;
    auto outcome = trainer.step(*groups[rank], rank == 1 ? kFlagSave : 0);
    if (outcome) seen[rank] = outcome->flags;
  });
  CHECK(seen == std::vector<std::uint64_t>(3, kFlagSave));
}

TEST_CASE("trainer: a gradient that is not finite fails the job and names step and tensor") {
  TinyJob tiny;
  tiny.spec().train.optimizer.rate = std::numeric_limits<double>::infinity();
  const auto job = tiny.open();
  const auto groups = test::form_group(1);
  Progress progress;
  Trainer trainer(*job, 1, progress);
  REQUIRE(trainer.enter(*groups[0], {.generation = 1, .root = tiny.checkpoints()}).ok());
  REQUIRE(trainer.step(*groups[0], 0).ok());  // the weights are infinite now
  const auto outcome = trainer.step(*groups[0], 0);
  CHECK(trainer.job_failed());
  CHECK_THAT(outcome.error().message, Catch::Matchers::StartsWith("step 2: the gradient of ") &&
                                          Catch::Matchers::EndsWith(" is not finite"));
}

TEST_CASE("training job: what a user can get wrong is one clear line") {
  TinyJob tiny;
  const auto failure = [&] { return open_training_job({tiny.spec(), "", tiny.folder()}).error(); };
  tiny.spec().data.sequence = 5'000;
  CHECK(failure().code == ErrorCode::invalid_argument);
  tiny.spec().data.sequence = 12;
  tiny.spec().model.vocabulary = 40;  // the tokens go up to 47
  CHECK(failure().code == ErrorCode::invalid_argument);
  tiny.spec().model.vocabulary = 48;
  tiny.spec().data.tokens = {tiny.folder() + "/missing.npy"};
  CHECK(failure().code == ErrorCode::not_found);
  tiny.spec().train.optimizer.name = "adam";
  CHECK(
      failure().message ==
      "no optimizer \"adam\"; there are: adafactor, adamw, adamw8, lion, muon, schedule_free, sgd");
}

TEST_CASE("step record: one JSON object on one line, with every field of the contract") {
  StepRecord record{.step = 3,
                    .loss = 0.5,
                    .grad_norm = 2,
                    .rate = 1e-3,
                    .tokens = 64,
                    .seconds = 0.25,
                    .generation = 2,
                    .ranks = 4,
                    .weights = {1, 2}};
  CHECK(to_json(record) ==
        R"({"step":3,"loss":0.5,"grad_norm":2,"rate":0.001,"tokens":64,"seconds":0.250000,)"
        R"("generation":2,"ranks":4,"weights":"00000000000000010000000000000002",)"
        R"("profile":"portable"})");
}

}  // namespace
}  // namespace tutti::training
