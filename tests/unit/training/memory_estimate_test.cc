#include "jobs/training/memory_estimate.h"

#include <catch2/catch.hpp>

#include "jobs/models/training_pass.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

std::uint64_t part(const MemoryEstimate& estimate, std::string_view name) {
  for (const MemoryPart& part : estimate.parts) {
    if (part.name == name) return part.bytes;
  }
  FAIL("no part " << name);
  return 0;
}

}  // namespace

TEST_CASE("memory estimate: sums that stand at once follow the tree over shards") {
  const test::TinyJob tiny;
  const auto job = tiny.open();
  const std::uint64_t arena = job->decoder.layout().gradient_elements() * sizeof(float);
  const auto buffers = [&](std::uint32_t ranks) {
    return part(estimate_memory(job->spec, job->decoder, *job->optimizer, ranks), "gradients") /
           arena;
  };
  CHECK(buffers(1) == 4);  // 8 shards: as a binary counter
  CHECK(buffers(2) == 3);
  CHECK(buffers(3) == 3);  // {5}, and beside it {6} and {7}
  CHECK(buffers(4) == 2);
  CHECK(buffers(8) == 1);
  CHECK(estimate_memory(job->spec, job->decoder, *job->optimizer, 100).ranks == 8);
}

TEST_CASE("memory estimate: the parts of a job are those that it allocates") {
  test::TinyJob tiny;
  tiny.spec().resources.ranks_max = 4;
  const auto job = tiny.open();
  const auto& layout = job->decoder.layout();
  const MemoryEstimate alone = estimate_memory(job->spec, job->decoder, *job->optimizer, 1);
  CHECK(part(alone, "weights") == layout.elements() * sizeof(float));
  CHECK(part(alone, "optimizer") == 2 * part(alone, "weights"));
  // A code a number, and two scales for each parameter, which has fewer than a block of them.
  const auto in_bytes = estimate_memory(job->spec, job->decoder, optimizers::kAdamW8, 1);
  CHECK(part(in_bytes, "optimizer") < part(alone, "optimizer") / 3);
  CHECK(part(in_bytes, "optimizer") > 2 * layout.parameter_count());
  CHECK(part(alone, "exchange") == 0);
  const std::uint32_t micro = micro_samples(job->spec, job->decoder, /*on_device=*/true);
  CHECK(part(alone, "activations") ==
        models::TrainingPass::workspace_bytes(
            job->decoder.description(),
            {.rows_max = micro * job->spec.data.sequence, .samples_max = micro}));
  CHECK(part(alone, "losses") == 9 * 12 * sizeof(float));
  const MemoryEstimate of_four = estimate_memory(job->spec, job->decoder, *job->optimizer, 4);
  CHECK(part(of_four, "exchange") > 0);
  CHECK(part(of_four, "losses") == 3 * 12 * sizeof(float));  // of {6} and {7}, which has two
  std::uint64_t sum = 0;
  for (const MemoryPart& one : alone.parts) sum += one.bytes;
  CHECK(alone.bytes() == sum);
  // One rank holds most of the tree.
  const auto largest = estimate_memory(job->spec);
  REQUIRE(largest);
  CHECK(largest->ranks == 1);
  CHECK(largest->bytes() == alone.bytes());

  spec::JobSpec rounded = job->spec;
  rounded.train.precision = "bf16";
  const MemoryEstimate in_bf16 = estimate_memory(rounded, job->decoder, *job->optimizer, 1);
  CHECK(part(in_bf16, "scratch") > part(alone, "scratch"));
  CHECK(alone.spare == 0);
  // Without rounded weights each product rounds what it reads: of those the head is largest here.
  CHECK(in_bf16.spare > 0);
  CHECK(in_bf16.spare < part(in_bf16, "rounded weights"));
  CHECK(in_bf16.least() + in_bf16.spare == in_bf16.bytes());
  // Rows of the head up to 64 from 48, in weights and in logits.
  spec::JobSpec padded = job->spec;
  padded.train.pad_vocabulary = 64;
  const auto with_rows = estimate_memory(padded);
  REQUIRE(with_rows);
  CHECK(part(*with_rows, "weights") == part(alone, "weights") + 16 * 16 * sizeof(float));
  CHECK(part(*with_rows, "scratch") == part(alone, "scratch") / 48 * 64);
  // Ways to make room: what is kept is the spec's without them.
  const auto ways = less_kept(job->spec, job->decoder, *job->optimizer);
  REQUIRE(ways.size() == 2);
  CHECK(ways[0].recompute == models::Recompute::selective);
  CHECK(ways[0].bytes < largest->bytes());
  CHECK(ways[1].bytes < ways[0].bytes);
  spec::JobSpec again = job->spec;
  again.train.recompute = "full";
  CHECK(estimate_memory(again)->bytes() == ways[1].bytes);
  CHECK(less_kept(again, job->decoder, *job->optimizer).empty());
  rounded.model.heads = 7;  // does not divide the width
  CHECK_FALSE(estimate_memory(rounded));
}

TEST_CASE("memory estimate: what is kept rounded is counted so, of models whose rows may be") {
  test::TinyJob tiny;
  const auto check = [&](const char* precision, models::Kept kept) {
    CAPTURE(precision, tiny.spec().model.feed_forward);
    tiny.spec().train.precision = precision;
    const auto job = tiny.open();
    const MemoryEstimate estimate = estimate_memory(job->spec, job->decoder, *job->optimizer, 1);
    const std::uint64_t rounded = 2 * job->decoder.layout().elements();
    CHECK(job->kept() == kept);
    CHECK(part(estimate, "rounded weights") == (kept == models::Kept::wide ? 0 : rounded));
    const std::uint32_t micro = micro_samples(job->spec, job->decoder, /*on_device=*/true);
    CHECK(part(estimate, "activations") ==
          models::TrainingPass::workspace_bytes(
              job->decoder.description(),
              {.rows_max = micro * job->spec.data.sequence, .samples_max = micro},
              models::Recompute::none, kept));
  };
  check("bf16", models::Kept::attention);
  check("fp16", models::Kept::products);
  check("fp8", models::Kept::attention);
  check("tf32", models::Kept::wide);
  check("fp32", models::Kept::wide);
  tiny.spec().model.feed_forward = 60;
  check("bf16", models::Kept::wide);
  check("fp16", models::Kept::wide);
}

TEST_CASE("memory estimate: auto on a device is what products want and activations may take") {
  spec::JobSpec spec;
  spec.model = {.path = {},
                .family = "gpt2",
                .layers = 12,
                .width = 768,
                .heads = 12,
                .kv_heads = 12,
                .feed_forward = 3072,
                .vocabulary = 50257};
  spec.data.sequence = 1024;
  spec.train.batch = 128;
  spec.parallel.shards = 4;
  const auto micro = [&](bool on_device) {
    return micro_samples(spec, *open_decoder(spec), on_device);
  };
  CHECK(micro(true) == 8);  // 8,192 rows
  CHECK(micro(false) == 1);
  spec.train.batch = 12;
  CHECK(micro(true) == 3);  // a shard's
  spec.train.micro = 2;
  CHECK(micro(true) == 2);
  spec.train.micro = 0;
  spec.train.batch = 128;
  // What is kept of a row decides from some size on, and recompute wins rows.
  spec.model = {.path = {},
                .family = "llama",
                .layers = 32,
                .width = 4096,
                .heads = 32,
                .kv_heads = 32,
                .feed_forward = 11008,
                .vocabulary = 32000};
  const auto activations = [&](std::uint32_t samples) {
    return models::TrainingPass::workspace_bytes(
        open_decoder(spec)->description(),
        {.rows_max = samples * spec.data.sequence, .samples_max = samples}, recompute_of(spec));
  };
  constexpr std::uint64_t kMost = std::uint64_t{16} << 30;
  const std::uint32_t kept = micro(true);
  CHECK(kept < 8);
  CHECK((kept == 1 || activations(kept) <= kMost));
  CHECK(activations(kept + 1) > kMost);
  // Rows that are kept rounded leave it as it is: bits depend on it there.
  for (const char* const precision : {"bf16", "fp16", "tf32", "fp8"}) {
    spec.train.precision = precision;
    CHECK(micro(true) == kept);
  }
  spec.train.recompute = "full";
  CHECK(micro(true) > kept);
  spec.data.sequence = 16384;
  CHECK(micro(true) == 1);  // one sample at least
}

}  // namespace tutti::training
