// The trainer and the passes on the emulated GPU, ranks as threads: the same bits for any number of
// ranks and after a loss, and close to what a CPU computes.
#include <catch2/catch.hpp>

#include <filesystem>
#include <map>

#include "jobs/checkpoint/checkpoint_writer.h"
#include "jobs/models/inference_pass.h"
#include "jobs/models/training_pass.h"
#include "jobs/optimizers/optimizer.h"
#include "kernels/cuda/device.h"
#include "kernels/ops/add.h"
#include "kernels/ops/cross_entropy.h"
#include "protocol/base/file.h"
#include "tests/emulation/training/training_members.h"
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using kernels::cuda::CudaDevice;
using test::Hashes;
using test::make_members;
using test::Member;
using test::Members;
using test::plain_groups;
using test::run_generation;
using test::TinyJob;

Hashes undisturbed(const TinyJob& tiny, std::size_t ranks) {
  const auto job = tiny.open();
  Hashes hashes;
  run_generation(make_members(*job, ranks), {.generation = 1, .root = tiny.checkpoints()},
                 job->last_step(), hashes);
  return hashes;
}

}  // namespace

TEST_CASE(
    "emulation: training has the same hashes for 1, 2 and 4 ranks, and after a rank is lost") {
  const TinyJob tiny({.micro = 1});
  const Hashes expected = undisturbed(tiny, 1);
  REQUIRE(expected.size() == 4);
  CHECK(expected.at(1) != expected.at(4));
  CHECK(undisturbed(tiny, 2) == expected);
  CHECK(undisturbed(tiny, 4) == expected);

  // After two steps one of two ranks is gone; its successor copies the state of the other.
  const auto job = tiny.open();
  Members members = make_members(*job, 2);
  Hashes hashes;
  run_generation(members, {.generation = 1, .root = tiny.checkpoints()}, 2, hashes);
  members[1] = std::make_unique<Member>(*job);
  run_generation(members,
                 {.generation = 2, .base_step = 2, .root = tiny.checkpoints(), .copies = {{0, 1}}},
                 job->last_step(), hashes);
  CHECK(hashes == expected);

  // What is written to a checkpoint is what the device holds.
  REQUIRE(members[0]->trainer->bring_to_host());
  REQUIRE(members[1]->trainer->bring_to_host());
  const auto first = members[0]->trainer->checkpoint_state();
  const auto second = members[1]->trainer->checkpoint_state();
  CHECK(std::equal(first.weights.begin(), first.weights.end(), second.weights.begin()));
  CHECK(first.entry.profile.find("sm_90-fp32") == 0);
  CHECK(first.entry.profile.ends_with("-m1"));
}

TEST_CASE("emulation: only who sends or receives a copy moves its state between device and host") {
  const TinyJob tiny({.micro = 1});
  const auto job = tiny.open();
  Members members = make_members(*job, 2);
  const std::uint64_t state = members[0]->trainer->state().bytes();
  // Enters both ranks at step 2 and makes no step: what was moved meanwhile, down and up.
  const auto entering = [&](std::uint64_t generation, std::vector<Copy> copies) {
    const EnterPlan plan{.generation = generation,
                         .base_step = 2,
                         .root = tiny.checkpoints(),
                         .copies = std::move(copies)};
    const auto before = emulation::copied_bytes();
    Hashes hashes;
    run_generation(members, plan, 2, hashes);
    const auto after = emulation::copied_bytes();
    return emulation::CopiedBytes{after.up - before.up, after.down - before.down};
  };
  Hashes hashes;
  run_generation(members, {.generation = 1, .root = tiny.checkpoints()}, 2, hashes);
  const auto none = entering(2, {});
  CHECK(none.down < state);
  CHECK(none.up < state);
  members[1] = std::make_unique<Member>(*job);
  const auto one = entering(3, {{0, 1}});
  CHECK(one.down >= state);
  CHECK(one.down < 2 * state);
  CHECK(one.up >= state);
  CHECK(one.up < 2 * state);
  run_generation(members, {.generation = 4, .base_step = 2, .root = tiny.checkpoints()},
                 job->last_step(), hashes);
  CHECK(hashes == undisturbed(tiny, 1));
}

TEST_CASE("emulation: more pieces than one pass adds give the same hashes") {
  const TinyJob tiny({.batch = 64, .shards = 64, .steps = 1});
  const auto tree = kernels::ShardTree::create(64, 64, 15);
  REQUIRE(tree);
  std::size_t pieces = 0;
  for (std::uint64_t rank = 0; rank < 15; ++rank) pieces += tree->subtrees_of(rank).size();
  REQUIRE(pieces > kernels::PieceSum::kPassPieces);
  const Hashes expected = undisturbed(tiny, 1);
  REQUIRE(expected.size() == 1);
  CHECK(undisturbed(tiny, 15) == expected);
}

namespace {

// Layer norm, learned positions, biases, GELU: the parts of a GPT-2 (Radford et al. 2019).
void make_gpt2(spec::JobSpec& spec) {
  spec.model.family = "gpt2";
  spec.model.kv_heads = spec.model.heads;
}

}  // namespace

TEST_CASE("emulation: a GPT-2-shaped model has the same hashes for 1, 2 and 4 ranks") {
  TinyJob tiny({.micro = 1, .steps = 2});
  make_gpt2(tiny.spec());
  for (const char* const precision : {"fp32", "bf16"}) {
    INFO(precision);
    tiny.spec().train.precision = precision;
    const Hashes expected = undisturbed(tiny, 1);
    REQUIRE(expected.size() == 2);
    CHECK(expected.at(1) != expected.at(2));
    CHECK(undisturbed(tiny, 2) == expected);
    if (tiny.spec().train.precision == "fp32") CHECK(undisturbed(tiny, 4) == expected);
  }
}

TEST_CASE("emulation: what is made again has the hashes of what is kept, on 1 and 2 ranks") {
  for (const char* const family : {"llama", "gpt2"}) {
    TinyJob tiny({.batch = 4, .shards = 2, .steps = 2});
    if (std::string_view(family) == "gpt2") {
      make_gpt2(tiny.spec());
      tiny.spec().train.precision = "bf16";
    }
    tiny.spec().model.layers = 3;
    tiny.spec().train.dropout = 0.2;
    const Hashes kept = undisturbed(tiny, 1);
    REQUIRE(kept.size() == 2);
    for (const auto& [recompute, ranks] : {std::pair("selective", 1U), std::pair("full", 2U)}) {
      INFO(family << ", " << recompute << ", " << ranks << " ranks");
      tiny.spec().train.recompute = recompute;
      CHECK(undisturbed(tiny, ranks) == kept);
    }
  }
}

TEST_CASE("emulation: each optimizer gives the same hashes for 1, 2 and 4 ranks") {
  for (const optimizers::Optimizer& optimizer : optimizers::optimizers()) {
    INFO(optimizer.name);
    TinyJob tiny({.batch = 4, .shards = 4, .steps = 3});
    tiny.spec().train.optimizer.name = optimizer.name;
    const Hashes expected = undisturbed(tiny, 1);
    REQUIRE(expected.size() == 3);
    CHECK(expected.at(1) != expected.at(3));
    CHECK(undisturbed(tiny, 2) == expected);
    CHECK(undisturbed(tiny, 4) == expected);
  }
}

TEST_CASE("emulation: an optimizer's products are chosen before ranks compare their choices") {
  for (const char* const precision : {"fp32", "bf16"}) {
    INFO(precision);
    std::map<std::string, std::string> entered;
    for (const char* const optimizer : {"adamw", "muon"}) {
      TinyJob tiny({.batch = 4, .shards = 2, .steps = 2});
      tiny.spec().train.precision = precision;
      tiny.spec().train.optimizer.name = optimizer;
      const auto job = tiny.open();
      const EnterPlan plan{.generation = 1, .root = tiny.checkpoints()};
      const Members members = make_members(*job, 1);
      Hashes hashes;
      run_generation(members, plan, 0, hashes);
      entered[optimizer] = members[0]->device->choice_table();
      run_generation(members, {.generation = 2, .root = tiny.checkpoints()}, 2, hashes);
      CHECK(members[0]->device->choice_table() == entered[optimizer]);
    }
    CHECK(entered["muon"].size() > entered["adamw"].size());
  }
}

TEST_CASE(
    "emulation: buckets that are exchanged while backward goes on give the bits of an exchange "
    "after it") {
  const TinyJob tiny({.batch = 5, .micro = 1});  // shards without samples, too
  const auto job = tiny.open();
  const EnterPlan plan{.generation = 1, .root = tiny.checkpoints()};
  Hashes expected;
  const Members staged = make_members(*job, 3);
  run_generation(staged, plain_groups(staged), plan, 2, expected);
  REQUIRE(expected.size() == 2);
  for (const std::size_t ranks : {3, 4}) {
    Hashes hashes;
    run_generation(make_members(*job, ranks), plan, 2, hashes);
    CHECK(hashes == expected);
  }
}

TEST_CASE("emulation: bf16 products keep the hashes for 1, 2 and 4 ranks, and are not fp32's") {
  TinyJob tiny({.micro = 1});
  const Hashes exact = undisturbed(tiny, 1);
  tiny.spec().train.precision = "bf16";
  const Hashes expected = undisturbed(tiny, 1);
  REQUIRE(expected.size() == 4);
  CHECK(expected.at(1) != exact.at(1));
  CHECK(undisturbed(tiny, 2) == expected);
  CHECK(undisturbed(tiny, 4) == expected);
}

TEST_CASE(
    "emulation: fp16 and TF32 keep the hashes for 1, 2 and 4 ranks, and are profiles of their "
    "own") {
  TinyJob tiny({.micro = 1, .steps = 3});
  std::map<std::string, Hashes> expected;
  for (const char* const precision : {"fp32", "fp16", "tf32"}) {
    INFO(precision);
    tiny.spec().train.precision = precision;
    expected[precision] = undisturbed(tiny, 1);
    REQUIRE(expected[precision].size() == 3);
    CHECK(undisturbed(tiny, 2) == expected[precision]);
    CHECK(undisturbed(tiny, 4) == expected[precision]);
    CHECK(Member::open(precision)->profile().find(std::string("sm_90-") + precision) == 0);
  }
  CHECK(expected["fp16"].at(1) != expected["fp32"].at(1));
  CHECK(expected["tf32"].at(1) != expected["fp32"].at(1));
  CHECK(expected["tf32"].at(1) != expected["fp16"].at(1));
}

TEST_CASE("emulation: a step that fp16 skips is skipped by all ranks, and by a newcomer's scale") {
  TinyJob tiny({.micro = 1, .steps = 6});
  tiny.spec().train.precision = "fp16";
  tiny.spec().train.scaling = {.first = 32768, .every = 2};
  const Hashes expected = undisturbed(tiny, 1);
  REQUIRE(expected.size() == 6);
  CHECK(expected.at(1) != expected.at(6));
  CHECK(undisturbed(tiny, 2) == expected);
  const auto job = tiny.open();
  Members members = make_members(*job, 2);
  Hashes hashes;
  run_generation(members, {.generation = 1, .root = tiny.checkpoints()}, 3, hashes);
  CHECK(members[0]->trainer->state().loss_scale.skipped > 0);
  members[1] = std::make_unique<Member>(*job);
  run_generation(members,
                 {.generation = 2, .base_step = 3, .root = tiny.checkpoints(), .copies = {{0, 1}}},
                 job->last_step(), hashes);
  CHECK(hashes == expected);
  CHECK(members[1]->trainer->state().loss_scale == members[0]->trainer->state().loss_scale);
}

namespace {

// The file of a folder that has chosen its algorithms, with another one for each product.
void choose_others(const std::filesystem::path& cache) {
  const auto file = std::filesystem::directory_iterator(cache)->path().string();
  const auto stored = std::filesystem::path(file.substr(0, file.find(".txt")) + ".txt");
  std::string text = *read_file(stored);
  // The last word of a line is the order in which its product's sums are added up.
  for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n', end + 1))
    text[end - 1] = static_cast<char>(text[end - 1] ^ 1);
  REQUIRE(write_file_atomically(stored, text));
}

}  // namespace

// Not those without padding: a library may sum otherwise for another number of rows.
TEST_CASE("emulation: with padded rows of the head, 1 and 2 ranks have the same hashes") {
  for (const char* const precision : {"fp32", "bf16"}) {
    INFO(precision);
    TinyJob tiny({.batch = 4, .shards = 2, .steps = 3});
    tiny.spec().train.precision = precision;
    tiny.spec().train.pad_vocabulary = 64;
    const Hashes expected = undisturbed(tiny, 1);
    REQUIRE(expected.size() == 3);
    CHECK(undisturbed(tiny, 2) == expected);
  }
}

TEST_CASE("emulation: ranks whose machines chose other algorithms take those of one of them") {
  const TinyJob tiny({.micro = 1});
  const auto job = tiny.open();
  const EnterPlan plan{.generation = 1, .root = tiny.checkpoints()};
  const Hashes usual = undisturbed(tiny, 1);
  const test::TemporaryFolder cache;
  const auto stored = [&] { return std::make_unique<Member>(*job, cache.path()); };
  const auto fresh = [&] { return std::make_unique<Member>(*job); };
  const auto members_of = [](auto... members) {
    Members out;
    (out.push_back(std::move(members)), ...);
    return out;
  };
  Hashes alike;
  run_generation(members_of(stored()), plan, 4, alike);
  CHECK(alike == usual);
  choose_others(cache.path());
  Hashes others;
  run_generation(members_of(stored()), plan, 4, others);
  REQUIRE(others.size() == 4);
  CHECK(others.at(1) != usual.at(1));

  // Rank 0's table is the group's.
  Hashes hashes;
  Members pair = members_of(stored(), fresh());
  run_generation(pair, plan, 2, hashes);
  CHECK(pair[1]->device->choices() == pair[0]->device->choices());
  // In a later generation that of those who have computed, also where rank 0 is a newcomer with
  // choices of its own.
  pair[0] = fresh();
  run_generation(pair,
                 {.generation = 2, .base_step = 2, .root = tiny.checkpoints(), .copies = {{1, 0}}},
                 3, hashes);
  CHECK(hashes == Hashes(others.begin(), std::next(others.begin(), 3)));

  // A checkpoint carries it to machines that would choose otherwise.
  REQUIRE(pair[0]->trainer->bring_to_host());
  const auto state = pair[0]->trainer->checkpoint_state();
  CHECK(state.entry.choices == pair[0]->device->choice_table());
  const auto files = checkpoint::write_part(
      state, {.root = tiny.checkpoints(), .generation = 2, .rank = 0, .ranks = 1});
  REQUIRE(files);
  const auto folder =
      checkpoint::commit({.root = tiny.checkpoints(), .step = 3, .generation = 2, .files = *files});
  REQUIRE(folder);
  Hashes resumed;
  run_generation(
      members_of(fresh(), fresh()),
      {.generation = 3, .base_step = 3, .checkpoint = folder->string(), .root = tiny.checkpoints()},
      4, resumed);
  CHECK(resumed.at(4) == others.at(4));
}

TEST_CASE(
    "emulation: serving gives the bits of one prefill in chunks and one by one, near the CPU's and "
    "those of training") {
  const char* const family = GENERATE("llama", "gpt2");
  INFO(family);
  TinyJob tiny;
  if (std::string_view(family) == "gpt2") make_gpt2(tiny.spec());
  tiny.spec().data.sequence = 80;  // of positions that a GPT-2 can learn
  const auto job = tiny.open();
  const models::Decoder& decoder = job->decoder;
  kernels::ThreadPool pool(1);
  kernels::FloatBuffer weights(static_cast<kernels::Index>(decoder.layout().elements()));
  decoder.initialise({&pool}, 3, weights.span());
  std::vector<std::int32_t> prompt(70);
  for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<std::int32_t>(i * 5 % 48);
  const auto device = Member::open();
  kernels::FloatBuffer device_weights(weights.size(), device.get());
  REQUIRE(device->upload(device_weights.data(), weights.data(), weights.span().size_bytes()));
  const auto images =
      models::ServingWeights::from({&pool, device.get()}, decoder, "fp32", weights.span());
  REQUIRE(images);
  enum class From { server, trainer };  // a library may sum the products of each otherwise
  const auto logits_of = [&](kernels::Device* on, const std::vector<std::size_t>& pieces,
                             From weights_from = From::trainer,
                             models::LogitRows wanted = models::LogitRows::last) {
    const kernels::OpContext ctx{&pool, on};
    models::InferencePass pass(decoder, {.rows_max = 70, .samples_max = 1}, on);
    models::KvCache cache(decoder.description(), 80, on);
    const auto& from = on == nullptr ? weights : device_weights;
    std::vector<float> logits(wanted == models::LogitRows::all ? 70 * 48 : 48);
    std::size_t done = 0;
    for (const std::size_t piece : pieces) {
      const models::SequenceChunk chunk{&cache, std::span(prompt).subspan(done, piece), wanted};
      REQUIRE((weights_from == From::server
                   ? pass.run(ctx, *images, std::span(&chunk, 1), logits)
                   : pass.run(ctx, from.span(), std::span(&chunk, 1), logits)));
      done += piece;
    }
    REQUIRE(done == prompt.size());
    return logits;
  };
  const auto on_cpu = logits_of(nullptr, {70});
  for (const From from : {From::server, From::trainer}) {
    const auto whole = logits_of(device.get(), {70}, from);
    CHECK(logits_of(device.get(), {1, 63, 4, 1, 1}, from) == whole);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      CHECK(whole[i] == Approx(on_cpu[i]).margin(1e-5));
    }
  }

  // The trainer's log-probabilities are the server's.
  models::TrainingPass training(decoder, {.rows_max = 70, .samples_max = 1}, device.get());
  const std::vector<std::int32_t> offsets = {0, 70};
  std::vector<float> losses(70);
  REQUIRE(training.token_losses({&pool, device.get()}, device_weights.span(),
                                {prompt, prompt, {}, offsets}, losses));
  auto all = logits_of(device.get(), {70}, From::server, models::LogitRows::all);
  const kernels::Matrix rows(all.data(), 70, 48);
  REQUIRE(kernels::log_softmax({&pool}, rows, rows));
  for (std::size_t row = 0; row < losses.size(); ++row) {
    const float given = rows.row(static_cast<kernels::Index>(row))[prompt[row]];
    CHECK(losses[row] == Approx(-given).margin(1e-5));
  }
}

TEST_CASE("emulation: a missing or old driver, and a device that is none, give one line each") {
  const auto message = [] { return CudaDevice::open({}).error().message; };
  ::setenv("TUTTI_EMULATION_DRIVER", "0", 1);
  CHECK(message().find("no NVIDIA driver is loaded") == 0);
  ::setenv("TUTTI_EMULATION_DRIVER", "12040", 1);
  CHECK(message().find("the NVIDIA driver knows CUDA 12.4, this build needs 13.0") == 0);
  ::unsetenv("TUTTI_EMULATION_DRIVER");
  CHECK(CudaDevice::open({.index = 99}).error().message.find("GPU 99 was asked for") == 0);
}

}  // namespace tutti::training
