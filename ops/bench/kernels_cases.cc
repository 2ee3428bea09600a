#include "ops/bench/kernels_cases.h"

#include <fmt/core.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "kernels/ops/adamw.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/random.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/tensor/buffer.h"
#include "ops/bench/peer_process.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;

namespace {

using Run = std::function<void()>;

// What lies in a cache has a share above 1 of memory's speed.
void bench_alone(const Bench& bench, const char* name, double bytes, const Run& run) {
  bench_beside(bench, {.name = name, .bytes = bytes}, run);
}

void bench_rows(const Bench& bench) {
  constexpr Index kTokens = 2048;
  std::vector<FloatBuffer> b;
  for (std::uint64_t i = 0; i < 5; ++i) b.push_back(numbers(bench, kTokens * 512, i));
  const auto narrow = [&](std::size_t i) { return b[i].matrix(kTokens, 192); };
  const auto wide = [&](std::size_t i) { return b[i].matrix(kTokens, 512); };
  FloatBuffer inverse(kTokens);
  FloatBuffer weight(192);
  FloatBuffer dweight(192);
  bench_alone(bench, "rms norm forward 2048x192", 8.0 * kTokens * 192.0, [&] {
    TUTTI_ASSERT(rms_norm_forward(
        bench.ctx,
        {.x = narrow(0), .weight = weight.data(), .y = narrow(1), .inverse = inverse.data()}));
  });
  bench_alone(bench, "rms norm backward 2048x192", 16.0 * kTokens * 192.0, [&] {
    TUTTI_ASSERT(rms_norm_backward(bench.ctx, {.dy = narrow(0),
                                               .x = narrow(1),
                                               .weight = weight.data(),
                                               .inverse = inverse.data(),
                                               .dx = narrow(2),
                                               .dweight = dweight.data(),
                                               .residual = narrow(3)}));
  });
  bench_alone(bench, "silu gate forward 2048x512", 12.0 * kTokens * 512.0, [&] {
    TUTTI_ASSERT(silu_gate_forward(bench.ctx, {.gate = wide(0), .up = wide(1), .y = wide(2)}));
  });
  bench_alone(bench, "silu gate backward 2048x512", 20.0 * kTokens * 512.0, [&] {
    TUTTI_ASSERT(silu_gate_backward(
        bench.ctx,
        {.dy = wide(0), .gate = wide(1), .up = wide(2), .dgate = wide(3), .dup = wide(4)}));
  });
  bench_alone(bench, "rotary 2048x192, heads of 32", 8.0 * kTokens * (192.0 + 16.0), [&] {
    TUTTI_ASSERT(rotary_apply(bench.ctx, {.x = narrow(0),
                                          .head_width = 32,
                                          .cosine = b[1].matrix(kTokens, 16),
                                          .sine = b[2].matrix(kTokens, 16)}));
  });
}

void bench_loss(const Bench& bench) {
  constexpr Index kTokens = 2048;
  constexpr Index kVocabulary = 2048;
  const FloatBuffer hidden = numbers(bench, kTokens * 192, 1);
  const FloatBuffer weight = numbers(bench, kVocabulary * 192, 2);
  FloatBuffer dhidden(kTokens * 192);
  FloatBuffer dweight(kVocabulary * 192);
  FloatBuffer losses(kTokens);
  std::vector<std::int32_t> targets;
  for (std::int32_t i = 0; i < kTokens; ++i) targets.push_back(i * 37 % 2048);
  bench_beside(bench,
               {.name = "linear cross entropy 2048x192, vocabulary 2048",
                .flops = 6.0 * kTokens * kVocabulary * 192.0},
               [&] {
                 TUTTI_ASSERT(linear_cross_entropy(bench.ctx,
                                                   {.hidden = hidden.matrix(kTokens, 192),
                                                    .weight = weight.matrix(kVocabulary, 192),
                                                    .targets = targets,
                                                    .losses = losses.data(),
                                                    .dhidden = dhidden.matrix(kTokens, 192),
                                                    .dweight = dweight.matrix(kVocabulary, 192)}));
               });
}

void bench_optimizer(const Bench& bench) {
  constexpr Index kSize = Index{1} << 21;
  std::vector<FloatBuffer> b;
  for (std::uint64_t i = 0; i < 4; ++i) b.push_back(numbers(bench, kSize, i));
  std::vector<kernels::Hash128> hashes(static_cast<std::size_t>(kernels::grid_blocks(kSize)));
  kernels::AdamWUpdate update{.settings = {},
                              .weight = b[0].span(),
                              .gradient = b[1].span(),
                              .first = b[2].span(),
                              .second = b[3].span()};
  for (float& v : b[3].span()) v = v * v;
  bench_alone(bench, "adamw 2M", 28.0 * kSize,
              [&] { TUTTI_ASSERT(adamw_update(bench.ctx, update)); });
  update.hashes = hashes;
  bench_alone(bench, "adamw 2M with hash", 28.0 * kSize,
              [&] { TUTTI_ASSERT(adamw_update(bench.ctx, update)); });
}

}  // namespace

bool wanted(const Bench& bench, const std::string& name) {
  return name.find(bench.options.only) != std::string::npos;
}

FloatBuffer numbers(const Bench& bench, Index count, std::uint64_t stream) {
  FloatBuffer buffer(count);
  TUTTI_ASSERT(kernels::fill_uniform(
      bench.ctx, {.key = {1, stream}, .low = -1.0, .high = 1.0, .out = buffer.span()}));
  return buffer;
}

void bench_beside(const Bench& bench, const BesideCase& c, const std::function<void()>& run) {
  if (!wanted(bench, c.name)) return;
  Line line{.bench = "kernels/ops", .name = c.name, .peer = {}};
  Pair pair;
  const bool beside = !c.peer_case.empty() && torch_peer(bench.options.threads).available() &&
                      torch_peer(bench.options.threads).prepare(c.peer_case);
  if (beside) {
    pair = measure_with_peer(run, torch_peer(bench.options.threads), bench.options.seconds,
                             bench.clock());
    line.peer = "pytorch";
    line.theirs = &pair.theirs;
  } else {
    pair.ours = measure(std::vector<Run>{run}, bench.options.seconds, bench.clock())[0];
  }
  line.ours = &pair.ours;
  if (c.flops > 0.0) {
    line.rate = c.flops * 1e-9 / pair.ours.median();
    const double ceiling = c.ceiling.value_or(bench.peak_gflops);
    if (ceiling > 0.0) line.share = line.rate / ceiling;
  } else if (c.bytes > 0.0 && bench.read_gbps > 0.0) {
    line.share = c.bytes * 1e-9 / pair.ours.median() / bench.read_gbps;
  }
  print_line(line);
}

void bench_ops(const Bench& bench) {
  bench_attention(bench);
  bench_large_rows(bench);
  bench_tokens(bench);
  bench_rows(bench);
  bench_loss(bench);
  bench_optimizer(bench);
}

}  // namespace tutti::bench
