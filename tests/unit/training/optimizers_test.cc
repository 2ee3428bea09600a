// Every row of the optimizers' table: what it promises of bits, resuming and learning.
#include "jobs/optimizers/optimizer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "jobs/checkpoint/checkpoint_reader.h"
#include "jobs/checkpoint/checkpoint_writer.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using test::TinyJob;

constexpr std::uint64_t kSteps = 6;

struct JobWith : TinyJob {
  explicit JobWith(std::string_view optimizer) : TinyJob({.steps = kSteps}) {
    spec::OptimizerSpec& settings = spec().train.optimizer;
    settings.name = optimizer;
    settings.rate = optimizer == "sgd" ? 0.3 : optimizer == "adafactor" ? 0.1 : 1e-2;
    spec().train.schedule.name = "constant";
  }
};

struct Outcome {
  std::vector<double> losses;
  std::vector<std::string> weights;
  bool operator==(const Outcome&) const = default;
};

struct Part {
  std::uint32_t ranks = 1;
  std::uint64_t steps = kSteps;  // in all
  std::string from = {};         // a checkpoint
  std::uint64_t base_step = 0;
};

// Steps up to `part.steps`; then all ranks save, and rank 0 commits the checkpoint.
Outcome run(const TinyJob& tiny, const Part& part, std::string* checkpoint = nullptr) {
  const auto job = tiny.open();
  Outcome outcome;
  const auto groups = test::form_group(part.ranks);
  std::vector<std::string> failures(part.ranks);
  std::vector<std::vector<checkpoint::FileEntry>> files(part.ranks);
  test::on_ranks(part.ranks, [&](std::uint32_t rank) {
    Progress progress;
    Trainer trainer(*job, 1, progress);
    auto entered = trainer.enter(*groups[rank], {.generation = 1,
                                                 .base_step = part.base_step,
                                                 .checkpoint = part.from,
                                                 .root = tiny.checkpoints()});
    if (!entered) failures[rank] = entered.error().message;
    while (failures[rank].empty() && trainer.state().step < part.steps) {
      auto made = trainer.step(*groups[rank], 0);
      if (!made) {
        failures[rank] = made.error().message;
        continue;
      }
      if (rank != 0) continue;
      outcome.losses.push_back(made->record.loss);
      outcome.weights.push_back(kernels::to_string(made->record.weights));
    }
    if (checkpoint == nullptr || !failures[rank].empty()) return;
    auto written = checkpoint::write_part(
        trainer.checkpoint_state(),
        {.root = tiny.checkpoints(), .generation = 1, .rank = rank, .ranks = part.ranks});
    if (written) files[rank] = *std::move(written);
  });
  for (const std::string& failure : failures) CHECK(failure.empty());
  if (checkpoint != nullptr) {
    checkpoint::CommitOrder order{
        .root = tiny.checkpoints(), .step = part.steps, .generation = 1, .files = {}, .keep = 3};
    for (const auto& own : files) order.files.insert(order.files.end(), own.begin(), own.end());
    auto committed = checkpoint::commit(order);
    REQUIRE(committed.ok());
    *checkpoint = committed->string();
  }
  return outcome;
}

TEST_CASE("optimizers: every row learns, with the same weights for any number of ranks") {
  for (const auto& row : optimizers::optimizers()) {
    INFO(row.name);
    const JobWith tiny(row.name);
    const Outcome alone = run(tiny, {.ranks = 1});
    REQUIRE(alone.losses.size() == kSteps);
    CHECK(alone.losses.back() < 0.97 * alone.losses.front());
    CHECK(run(tiny, {.ranks = 2}) == alone);
    CHECK(run(tiny, {.ranks = 3}) == alone);
  }
}

TEST_CASE("optimizers: every row goes on from a checkpoint of other ranks as if it never stopped") {
  for (const auto& row : optimizers::optimizers()) {
    INFO(row.name);
    const Outcome whole = run(JobWith(row.name), {.ranks = 1});
    const JobWith tiny(row.name);
    std::string checkpoint;
    (void)run(tiny, {.ranks = 2, .steps = 3}, &checkpoint);
    const Outcome rest = run(tiny, {.ranks = 1, .from = checkpoint, .base_step = 3});
    REQUIRE(rest.weights.size() == kSteps - 3);
    CHECK(std::equal(rest.weights.begin(), rest.weights.end(), whole.weights.begin() + 3));
  }
}

TEST_CASE(
    "optimizers: schedule-free saves the average as the model, its weights beside the states") {
  JobWith tiny("schedule_free");
  std::string folder;
  const Outcome outcome = run(tiny, {.ranks = 2, .steps = 4}, &folder);
  const auto job = tiny.open();
  const auto count = job->decoder.layout().elements();
  std::vector<float> weights(count);
  std::vector<float> z(count);
  std::vector<float> second(count);
  const std::vector<std::span<float>> states = {z, second};
  const auto loaded = checkpoint::load(folder, {.decoder = job->decoder,
                                                .weights = weights,
                                                .optimizer = "schedule_free",
                                                .states = {"z", "exp_avg_sq"},
                                                .state_values = states,
                                                .weights_beside = true});
  REQUIRE(loaded);
  CHECK(loaded->entry.weights == outcome.weights.back());
  CHECK(z != weights);
  std::vector<float> model(count);
  REQUIRE(models::load_weights(job->decoder, folder, model));
  const double beta1 = tiny.spec().train.optimizer.betas[0];
  for (const auto& parameter : job->decoder.layout().parameters()) {
    for (std::size_t i = parameter.offset; i < parameter.offset + parameter.elements; ++i) {
      const double y =
          (1 - beta1) * static_cast<double>(z[i]) + beta1 * static_cast<double>(model[i]);
      REQUIRE(y == Approx(static_cast<double>(weights[i])).epsilon(1e-5).margin(1e-6));
    }
  }
  CHECK(model != weights);
}

TEST_CASE("optimizers: rows give different weights, and decay moves matrices only") {
  std::vector<std::string> seen;
  for (const auto& row : optimizers::optimizers()) {
    INFO(row.name);
    const std::string last = run(JobWith(row.name), {.ranks = 1}).weights.back();
    CHECK(std::count(seen.begin(), seen.end(), last) == 0);
    seen.push_back(last);
    // With no gradient at all, what is left of a step is decay.
    JobWith tiny(row.name);
    tiny.spec().train.optimizer.decay = 0.5;
    const auto job = tiny.open();
    const auto& layout = job->decoder.layout();
    std::vector<float> weights(layout.elements(), 1.0F);
    const std::vector<float> gradients(layout.elements(), 0.0F);
    const std::uint64_t words = models::StateLayout(layout, row.packed).words;
    std::vector<std::vector<float>> arenas(row.states.size(), std::vector<float>(words));
    const std::vector<std::span<float>> states(arenas.begin(), arenas.end());
    optimizers::begin_states(row, weights, states);
    std::vector<kernels::Hash128> hashes(layout.blocks().size());
    kernels::ThreadPool pool(1);
    auto updated = row.update({&pool}, tiny.spec().train.optimizer,
                              {.layout = layout,
                               .weights = weights,
                               .gradients = gradients,
                               .states = states,
                               .block_hashes = hashes,
                               .rate = 0.1});
    REQUIRE(updated.ok());
    for (const auto& parameter : layout.parameters()) {
      INFO(parameter.name);
      const float first = weights[parameter.offset];
      CHECK((first < 1.0F) == parameter.decay);
      CHECK(std::isfinite(first));
    }
  }
}

}  // namespace
}  // namespace tutti::training
