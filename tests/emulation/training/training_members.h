// Ranks with an emulated GPU each, as threads of a test: their trainers, their groups over NCCL,
// and generations of them.
#pragma once

#include <catch2/catch.hpp>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/device.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::test {

using Groups = std::vector<std::unique_ptr<kernels::Communicator>>;
using Hashes = std::map<std::uint64_t, std::string>;

// A rank with a device of its own.
struct Member {
  explicit Member(training::TrainingJob& job, const std::filesystem::path& cache = {})
      : device(open(job.spec.train.precision, cache)) {
    REQUIRE(training::fit_memory(job, device.get()));
    trainer = std::make_unique<training::Trainer>(job, 1, progress, device.get());
  }
  // On a device that was opened otherwise than the job would, whatever room it has.
  Member(training::TrainingJob& job, std::unique_ptr<kernels::cuda::CudaDevice> opened)
      : device(std::move(opened)),
        trainer(std::make_unique<training::Trainer>(job, 1, progress, device.get())) {}
  static std::unique_ptr<kernels::cuda::CudaDevice> open(const std::string& precision = "fp32",
                                                         const std::filesystem::path& cache = {}) {
    using Inputs = kernels::cuda::Products::Inputs;
    const std::map<std::string, Inputs> inputs = {{"fp32", Inputs::fp32},
                                                  {"bf16", Inputs::bf16},
                                                  {"fp16", Inputs::fp16},
                                                  {"tf32", Inputs::tf32},
                                                  {"fp8", Inputs::fp8}};
    auto opened = kernels::cuda::CudaDevice::open({.inputs = inputs.at(precision), .cache = cache});
    REQUIRE(opened);
    return *std::move(opened);
  }

  std::unique_ptr<kernels::cuda::CudaDevice> device;
  training::Progress progress;
  std::unique_ptr<training::Trainer> trainer;
};
using Members = std::vector<std::unique_ptr<Member>>;

// Sockets, with NCCL for device memory over them where there are several.
inline Groups linked_groups(const Members& members) {
  Groups groups = form_group(static_cast<std::uint32_t>(members.size()));
  if (groups.size() == 1) return groups;
  const auto id = members[0]->device->link_id();
  REQUIRE(id);
  for (std::size_t rank = 0; rank < groups.size(); ++rank) {
    auto linked = members[rank]->device->link(std::move(groups[rank]), *id);
    REQUIRE(linked);
    groups[rank] = *std::move(linked);
    REQUIRE(groups[rank]->moves_device_memory());
  }
  return groups;
}

// Sockets alone: what ranks exchange goes through host memory, when backward has ended.
inline Groups plain_groups(const Members& members) {
  return form_group(static_cast<std::uint32_t>(members.size()));
}

// One generation up to `last`; hashes of rank 0, which those of the others must equal. Each rank
// leaves the group by itself, as a process does: to leave in order is to wait for the others.
inline void run_generation(const Members& members, Groups groups, const training::EnterPlan& plan,
                           std::uint64_t last, Hashes& hashes) {
  std::vector<std::string> failures(members.size());
  std::vector<Hashes> seen(members.size());
  on_ranks(static_cast<std::uint32_t>(members.size()), [&](std::uint32_t rank) {
    training::Trainer& trainer = *members[rank]->trainer;
    const auto entered = trainer.enter(*groups[rank], plan);
    if (!entered) failures[rank] = entered.error().message;
    while (entered && failures[rank].empty() && trainer.state().step < last) {
      const auto outcome = trainer.step(*groups[rank], 0);
      if (!outcome) {
        failures[rank] = outcome.error().message;
      } else {
        seen[rank][outcome->record.step] = kernels::to_string(outcome->record.weights);
      }
    }
    groups[rank].reset();
  });
  for (std::size_t rank = 0; rank < members.size(); ++rank) {
    CHECK(failures[rank] == "");
    CHECK(seen[rank] == seen[0]);
  }
  hashes.insert(seen[0].begin(), seen[0].end());
}

inline void run_generation(const Members& members, const training::EnterPlan& plan,
                           std::uint64_t last, Hashes& hashes) {
  run_generation(members, linked_groups(members), plan, last, hashes);
}

inline Members make_members(training::TrainingJob& job, std::size_t count) {
  Members members;
  for (std::size_t rank = 0; rank < count; ++rank) members.push_back(std::make_unique<Member>(job));
  return members;
}

}  // namespace tutti::test
