// Training in fp8 on the emulated GPU: the same bits for any number of ranks, however weights are
// found and rows are kept, and losses that fall as in bf16.
#include <catch2/catch.hpp>

#include <cmath>

#include "jobs/training/memory_estimate.h"
#include "kernels/cuda/device.h"
#include "tests/emulation/training/training_members.h"
#include "tests/support/cuda_emulation/grid_counts.h"
#include "tests/support/larger.h"

namespace tutti::training {
namespace {

using kernels::cuda::CudaDevice;
using test::Hashes;
using test::Member;
using test::Members;
using test::TinyJob;
using Inputs = kernels::cuda::Products::Inputs;

std::unique_ptr<Member> member_of(TrainingJob& job, Inputs inputs = Inputs::fp8) {
  auto opened = CudaDevice::open({.inputs = inputs});
  REQUIRE(opened);
  return std::make_unique<Member>(job, *std::move(opened));
}

Members members_of(TrainingJob& job, std::size_t count) {
  Members members;
  for (std::size_t i = 0; i < count; ++i) members.push_back(member_of(job));
  return members;
}

Hashes run(const Members& members, const EnterPlan& plan, std::uint64_t last) {
  Hashes hashes;
  test::run_generation(members, plan, last, hashes);
  return hashes;
}

Hashes undisturbed(TrainingJob& job, const TinyJob& tiny, std::size_t ranks) {
  return run(members_of(job, ranks), {.generation = 1, .root = tiny.checkpoints()},
             job.last_step());
}

void make_gpt2(spec::JobSpec& spec) {
  spec.model.family = "gpt2";
  spec.model.kv_heads = spec.model.heads;
}

}  // namespace

TEST_CASE("emulation: fp8 keeps the hashes for 1, 2 and 4 ranks, and after a rank is lost") {
  for (const char* const family : {"llama", "gpt2"}) {
    INFO(family);
    TinyJob tiny({.micro = 1});
    if (std::string_view(family) == "gpt2") make_gpt2(tiny.spec());
    tiny.spec().train.precision = "fp8";
    const auto job = tiny.open();
    const Hashes expected = undisturbed(*job, tiny, 1);
    REQUIRE(expected.size() == 4);
    CHECK(expected.at(1) != expected.at(4));
    CHECK(undisturbed(*job, tiny, 2) == expected);
    CHECK(undisturbed(*job, tiny, 4) == expected);

    Members members = members_of(*job, 2);
    Hashes hashes = run(members, {.generation = 1, .root = tiny.checkpoints()}, 2);
    members[1] = member_of(*job);
    const Hashes rest =
        run(members,
            {.generation = 2, .base_step = 2, .root = tiny.checkpoints(), .copies = {{0, 1}}}, 4);
    hashes.insert(rest.begin(), rest.end());
    CHECK(hashes == expected);
    CHECK(members[0]->device->profile() == "sm_90-fp8-e4m3_rows-cublaslt-130000");
  }
}

TEST_CASE(
    "emulation: without room for codes, with wide rows and recomputed, fp8 has the same bits") {
  TinyJob tiny({.batch = 4, .shards = 2, .micro = 1, .steps = 3});
  tiny.spec().train.precision = "fp8";
  const auto job = tiny.open();
  REQUIRE(job->kept() == models::Kept::attention);
  const auto made = [] { return emulation::grids_of("column_codes_kernel"); };
  const auto before = made();
  const Hashes expected = undisturbed(*job, tiny, 1);
  const auto once = made() - before;
  // Five of seven layers' shapes have codes, in two layers; rehearsed, and in three steps.
  CHECK(once == 5 * 2 * (1 + 3));
  job->rounds_weights = false;
  CHECK(undisturbed(*job, tiny, 2) == expected);
  CHECK(made() - before > 2 * once);
  for (const char* const recompute : {"selective", "full"}) {
    tiny.spec().train.recompute = recompute;
    const auto again = tiny.open();
    CHECK(undisturbed(*again, tiny, 1) == expected);
  }
  // A job in fp32 keeps wide rows, and makes no codes ahead.
  tiny.spec().train.recompute = "none";
  tiny.spec().train.precision = "fp32";
  const auto wide = tiny.open();
  REQUIRE(wide->kept() == models::Kept::wide);
  CHECK(undisturbed(*wide, tiny, 1) == expected);
}

TEST_CASE("emulation: losses in fp8 fall as those in bf16 do, over forty steps") {
  TinyJob tiny({.batch = 8, .shards = 1, .micro = 8, .steps = 40});
  tiny.spec().model.kv_heads = 2;  // all weights have codes
  const auto losses_in = [&](const char* precision, Inputs inputs) {
    tiny.spec().train.precision = precision;
    const auto job = tiny.open();
    auto device = CudaDevice::open({.inputs = inputs});
    REQUIRE(device);
    Progress progress;
    Trainer trainer(*job, 1, progress, device->get());
    const auto groups = test::form_group(1);
    REQUIRE(trainer.enter(*groups[0], {.generation = 1, .root = tiny.checkpoints()}));
    std::vector<double> losses;
    while (trainer.state().step < job->last_step()) {
      const auto outcome = trainer.step(*groups[0], 0);
      REQUIRE(outcome);
      losses.push_back(outcome->record.loss);
    }
    return losses;
  };
  const auto coarse = losses_in("bf16", Inputs::bf16);
  const auto codes = losses_in("fp8", Inputs::fp8);
  REQUIRE(coarse.size() == 40);
  REQUIRE(codes.size() == 40);
  CHECK(coarse.back() < 0.6 * coarse.front());
  double apart = 0.0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    INFO("step " << i + 1 << ": " << codes[i] << ", in bf16 " << coarse[i]);
    CHECK(std::abs(codes[i] / coarse[i] - 1.0) < 0x1p-5);
    apart = test::larger(apart, std::abs(codes[i] / coarse[i] - 1.0));
  }
  INFO("at most " << apart << " apart; ends at " << codes.back() << ", bf16 at " << coarse.back());
  CHECK(apart > 0.0);
  CHECK(codes.back() < 0.6 * codes.front());
}

namespace {

// Of a device, and of that for scratch, as it was estimated and as it was.
struct Memory {
  std::uint64_t taken = 0, scratch = 0;
  MemoryEstimate estimate;

  std::uint64_t codes() const {
    for (const MemoryPart& part : estimate.parts) {
      if (part.name == "fp8 weights") return part.bytes;
    }
    return 0;
  }
};

enum class Ahead { all, none };  // of weights

Memory memory_of(const TinyJob& tiny, Inputs inputs, Ahead ahead) {
  const auto job = tiny.open();
  job->rounds_weights = ahead == Ahead::all;
  const auto before = CudaDevice::open({})->get()->free_bytes();
  Members members;
  members.push_back(member_of(*job, inputs));
  run(members, {.generation = 1, .root = tiny.checkpoints()}, 2);
  const auto after = members[0]->device->free_bytes();
  REQUIRE((before && after));
  const std::uint64_t scratch = members[0]->device->scratch().reserved();
  return {*before - *after - scratch, scratch, *estimate_memory(job->spec)};
}

}  // namespace

TEST_CASE("emulation: what a job in fp8 takes of a device beyond one in bf16 is its codes") {
  for (const char* const family : {"llama", "gpt2"}) {
    for (const Ahead ahead : {Ahead::all, Ahead::none}) {
      CAPTURE(family, static_cast<int>(ahead));
      TinyJob tiny({.micro = 1});
      if (std::string_view(family) == "gpt2") make_gpt2(tiny.spec());
      tiny.spec().train.precision = "bf16";
      const Memory coarse = memory_of(tiny, Inputs::bf16, ahead);
      tiny.spec().train.precision = "fp8";
      const Memory memory = memory_of(tiny, Inputs::fp8, ahead);
      const std::uint64_t weights = tiny.open()->decoder.layout().parameter_count();
      CHECK(coarse.codes() == 0);
      CHECK(memory.codes() > weights);  // two bytes of most, and scales
      CHECK(memory.codes() < 3 * weights);
      CHECK(memory.taken == coarse.taken + (ahead == Ahead::all ? memory.codes() : 0));
      CHECK(memory.taken + memory.scratch <= memory.estimate.bytes());
      CHECK(memory.estimate.spare >= coarse.estimate.spare);
    }
  }
}

}  // namespace tutti::training
