// A tiny training job, and runs of it with ranks as threads of the test.
#pragma once

#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "jobs/data/npy.h"
#include "jobs/training/trainer.h"
#include "kernels/collective/communicator.h"
#include "protocol/base/rng.h"
#include "tests/support/temporary_folder.h"

namespace tutti::test {

struct TinyOptions {
  std::uint32_t batch = 9;  // does not divide by the shards
  std::uint32_t shards = 8;
  std::uint32_t micro = 0;
  std::uint64_t steps = 4;
};

// Tokens, spec and job of a two-layer model of some thousand parameters.
class TinyJob {
 public:
  explicit TinyJob(const TinyOptions& options = {}) {
    Rng rng(7);
    std::vector<std::uint32_t> tokens(3'000);  // a pattern that can be learnt, with some noise
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<std::uint32_t>(rng.chance(0.1) ? rng.below(48) : i * 7 % 12);
    }
    tokens.back() = 47;
    const std::string file = (folder_.path() / "tokens.npy").string();
    REQUIRE(data::write_token_file(file, tokens).ok());
    spec_.model = {.path = "",
                   .family = "llama",
                   .layers = 2,
                   .width = 16,
                   .heads = 2,
                   .kv_heads = 1,
                   .feed_forward = 64,
                   .vocabulary = 48};
    spec_.data.tokens = {file};
    spec_.data.sequence = 12;
    spec_.train.steps = options.steps;
    spec_.train.batch = options.batch;
    spec_.train.micro = options.micro;
    spec_.train.seed = 5;
    spec_.train.optimizer.rate = 1e-2;
    spec_.parallel.shards = options.shards;
    spec_.checkpoint.every = 2;
  }

  spec::JobSpec& spec() { return spec_; }
  std::string folder() const { return folder_.path().string(); }
  std::string checkpoints() const { return (folder_.path() / "checkpoints").string(); }

  std::unique_ptr<training::TrainingJob> open() const {
    auto job = training::open_training_job({spec_, "spec: of the test", folder()});
    INFO((job ? std::string() : job.error().message));
    REQUIRE(job.ok());
    return *std::move(job);
  }

 private:
  TemporaryFolder folder_;
  spec::JobSpec spec_;
};

// Communicators of a new generation for `size` ranks of this process.
inline std::vector<std::unique_ptr<kernels::Communicator>> form_group(std::uint32_t size) {
  std::vector<std::unique_ptr<kernels::Listener>> listeners;
  kernels::FormOptions form;
  form.generation = 1;
  form.secret = "tiny";
  for (std::uint32_t rank = 0; rank < size; ++rank) {
    auto listener = kernels::Listener::open({});
    REQUIRE(listener.ok());
    form.addresses.push_back((*listener)->address());
    listeners.push_back(*std::move(listener));
  }
  std::vector<std::unique_ptr<kernels::Communicator>> groups(size);
  std::vector<std::thread> threads;
  for (std::uint32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      kernels::FormOptions own = form;
      own.rank = rank;
      auto group = listeners[rank]->connect(own);
      if (group) groups[rank] = *std::move(group);
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& group : groups) REQUIRE(group != nullptr);
  return groups;
}

// Runs `rank_function(rank)` for each rank on its own thread.
template <class RankFunction>
void on_ranks(std::uint32_t size, const RankFunction& rank_function) {
  std::vector<std::thread> threads;
  for (std::uint32_t rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] { rank_function(rank); });
  for (auto& thread : threads) thread.join();
}

}  // namespace tutti::test
