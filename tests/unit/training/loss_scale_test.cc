// Dynamic loss scaling: found by all ranks alike, and a part of the state.
#include "jobs/training/loss_scale.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

#include "jobs/checkpoint/checkpoint_writer.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using test::TinyJob;

// Of fp16, with a scale that is halved once or more before the first good step.
struct ScaledJob : TinyJob {
  explicit ScaledJob(std::uint64_t steps) : TinyJob({.steps = steps}) {
    spec().train.precision = "fp16";
    spec().train.scaling = {.first = 32768, .every = 3};
  }
};

// Ranks that go from generation to generation.
class Ranks {
 public:
  Ranks(const TrainingJob& job, std::uint32_t count, int threads = 1)
      : job_(job), threads_(threads), members_(count) {
    for (std::uint32_t rank = 0; rank < count; ++rank) replace(rank);
  }

  void replace(std::uint32_t rank) {
    members_[rank] = std::make_unique<Member>();
    members_[rank]->trainer.emplace(job_, threads_, members_[rank]->progress, nullptr,
                                    kernels::Fp16Arithmetic{});
  }
  Trainer& trainer(std::uint32_t rank) { return *members_[rank]->trainer; }

  // Up to `last`; the records of rank 0, which those of the others must equal but for times.
  std::vector<StepRecord> run(const EnterPlan& plan, std::uint64_t last) {
    const auto count = static_cast<std::uint32_t>(members_.size());
    const auto groups = test::form_group(count);
    std::vector<std::vector<StepRecord>> records(count);
    std::vector<std::string> failures(count);
    test::on_ranks(count, [&](std::uint32_t rank) {
      Trainer& own = trainer(rank);
      const auto entered = own.enter(*groups[rank], plan);
      if (!entered) failures[rank] = entered.error().message;
      while (entered && failures[rank].empty() && own.state().step < last) {
        const auto outcome = own.step(*groups[rank], 0);
        if (outcome) {
          records[rank].push_back(outcome->record);
        } else {
          failures[rank] = outcome.error().message;
        }
      }
    });
    for (std::uint32_t rank = 0; rank < count; ++rank) {
      CHECK(failures[rank] == "");
      check_same(records[rank], records[0]);
      CHECK(trainer(rank).state().loss_scale == trainer(0).state().loss_scale);
    }
    return records[0];
  }

  static void check_same(const std::vector<StepRecord>& a, const std::vector<StepRecord>& b) {
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      CAPTURE(a[i].step);
      CHECK(a[i].weights == b[i].weights);
      CHECK(a[i].loss == b[i].loss);
      CHECK(a[i].skipped == b[i].skipped);
      CHECK(a[i].loss_scale == b[i].loss_scale);
      CHECK((a[i].skipped || a[i].grad_norm == b[i].grad_norm));
    }
  }

 private:
  struct Member {
    Progress progress;
    std::optional<Trainer> trainer;
  };
  const TrainingJob& job_;
  const int threads_;
  std::vector<std::unique_ptr<Member>> members_;
};

EnterPlan first_generation(const TinyJob& tiny) {
  return {.generation = 1, .root = tiny.checkpoints()};
}

std::vector<StepRecord> undisturbed(const TinyJob& tiny, std::uint32_t ranks = 1) {
  const auto job = tiny.open();
  return Ranks(*job, ranks).run(first_generation(tiny), job->last_step());
}

}  // namespace

TEST_CASE("loss scale: good steps double it up to its most, skipped ones halve it") {
  spec::TrainSpec train;
  train.precision = "fp16";
  train.scaling = {.first = 8192, .every = 2};
  LossScale scale = first_scale(train);
  CHECK(scale == LossScale{.value = 8192});
  scale = after_good_step(scale, train);
  CHECK(scale == LossScale{.value = 8192, .good_steps = 1});
  scale = after_skipped_step(scale);
  CHECK(scale == LossScale{.value = 4096, .good_steps = 0, .skipped = 1});
  for (int step = 0; step < 12; ++step) scale = after_good_step(scale, train);
  CHECK(scale == LossScale{.value = LossScale::kMost, .skipped = 1});
  train.scaling.every = 0;
  CHECK(after_good_step({.value = 4}, train).value == 4);
  train.precision = "bf16";
  CHECK(first_scale(train) == LossScale{});
  CHECK(after_good_step({}, train) == LossScale{});
}

TEST_CASE("loss scale: a skipped step changes no weight, and the next one has half the scale") {
  const auto records = undisturbed(ScaledJob(12));
  REQUIRE(records[0].skipped);
  std::size_t skipped = 0;
  std::size_t doubled = 0;
  for (std::size_t i = 0; i < records.size(); ++i) {
    CAPTURE(i, records[i].loss_scale);
    CHECK(records[i].profile == "portable-fp16");
    CHECK(std::isfinite(records[i].loss));
    if (records[i].skipped) ++skipped;
    if (i == 0) continue;
    CHECK((records[i].weights == records[i - 1].weights) == records[i].skipped);
    const float change = records[i].loss_scale / records[i - 1].loss_scale;
    CHECK((change == 0.5F) == records[i - 1].skipped);
    if (change == 2.0F) ++doubled;
  }
  CHECK(skipped < 8);
  CHECK(doubled > 0);
  CHECK(records.back().loss < records.front().loss);
}

TEST_CASE("loss scale: the same steps are skipped for any ranks, threads and micro-batch") {
  ScaledJob tiny(8);
  const auto expected = undisturbed(tiny);
  Ranks::check_same(undisturbed(tiny, 2), expected);
  Ranks::check_same(undisturbed(tiny, 3), expected);
  tiny.spec().train.micro = 1;
  const auto job = tiny.open();
  Ranks::check_same(Ranks(*job, 2, 3).run(first_generation(tiny), 8), expected);
}

TEST_CASE("loss scale: once found it is no part of what is computed") {
  TinyJob tiny({.steps = 6});
  tiny.spec().train.precision = "fp16";
  std::vector<std::vector<StepRecord>> runs;
  // Both so small that nothing overflows, so large that little is lost.
  for (const std::uint32_t first : {64U, 256U}) {
    tiny.spec().train.scaling = {.first = first, .every = 0};
    runs.push_back(undisturbed(tiny));
  }
  tiny.spec().train.precision = "fp32";
  const auto job = tiny.open();
  Progress progress;
  Trainer exact(*job, 1, progress);
  const auto groups = test::form_group(1);
  REQUIRE(exact.enter(*groups[0], first_generation(tiny)));
  for (std::size_t i = 0; i < 6; ++i) {
    const auto outcome = exact.step(*groups[0], 0);
    REQUIRE(outcome);
    CHECK(outcome->record.loss_scale == 0);
    for (const auto& run : runs) {
      CHECK_FALSE(run[i].skipped);
      CHECK(std::abs(run[i].loss / outcome->record.loss - 1.0) < 0x1p-10);
      CHECK(std::abs(run[i].grad_norm / outcome->record.grad_norm - 1.0) < 0x1p-7);
    }
  }
}

TEST_CASE("loss scale: a newcomer copies it, and a checkpoint carries it") {
  const ScaledJob tiny(9);
  const auto expected = undisturbed(tiny);
  const auto job = tiny.open();
  Ranks ranks(*job, 2);
  auto seen = ranks.run(first_generation(tiny), 2);
  ranks.replace(1);
  const auto later = ranks.run(
      {.generation = 2, .base_step = 2, .root = tiny.checkpoints(), .copies = {{0, 1}}}, 5);
  seen.insert(seen.end(), later.begin(), later.end());
  Ranks::check_same(seen, {expected.begin(), expected.begin() + 5});

  const auto state = ranks.trainer(0).checkpoint_state();
  REQUIRE(state.entry.loss_scale);
  CHECK(state.entry.loss_scale->skipped_steps > 0);
  const auto files = checkpoint::write_part(state, {.root = tiny.checkpoints(), .generation = 2});
  REQUIRE(files);
  const auto folder =
      checkpoint::commit({.root = tiny.checkpoints(), .step = 5, .generation = 2, .files = *files});
  REQUIRE(folder);
  Ranks resumed(*job, 3);
  const auto rest = resumed.run(
      {.generation = 3, .base_step = 5, .checkpoint = folder->string(), .root = tiny.checkpoints()},
      9);
  Ranks::check_same(rest, {expected.begin() + 5, expected.end()});
}

TEST_CASE("loss scale: what is not finite with a scale of 1 either fails the job") {
  TinyJob tiny({.steps = 40});
  tiny.spec().train.precision = "fp16";
  tiny.spec().train.scaling.first = 4;
  tiny.spec().train.optimizer.rate = std::numeric_limits<double>::infinity();
  const auto job = tiny.open();
  Ranks ranks(*job, 1);
  const auto groups = test::form_group(1);
  Trainer& trainer = ranks.trainer(0);
  REQUIRE(trainer.enter(*groups[0], first_generation(tiny)));
  REQUIRE(trainer.step(*groups[0], 0));  // the weights are infinite now
  for (const float scale : {4.0F, 2.0F}) {
    const auto outcome = trainer.step(*groups[0], 0);
    REQUIRE(outcome);
    CHECK(outcome->record.skipped);
    CHECK(outcome->record.loss_scale == scale);
    const std::string json = to_json(outcome->record);
    CHECK(json.find("\"loss\":null,\"grad_norm\":null,") != std::string::npos);
    CHECK(json.find("\"skipped\":true}") != std::string::npos);
  }
  const auto failed = trainer.step(*groups[0], 0);
  REQUIRE_FALSE(failed);
  CHECK(trainer.job_failed());
  CHECK(failed.error().message.find("step 4: the gradient of ") == 0);
  CHECK(failed.error().message.find(" is not finite, also with a loss scale of 1") !=
        std::string::npos);
}

}  // namespace tutti::training
