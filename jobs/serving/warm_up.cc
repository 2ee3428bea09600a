#include "jobs/serving/warm_up.h"

#include <algorithm>
#include <deque>
#include <vector>

namespace tutti::serving {

namespace {

constexpr std::int32_t kToken = 0;  // every vocabulary has it
constexpr int kTimes = 2;           // a step is captured when it comes again

Result<> run(const kernels::OpContext& ctx, models::InferencePass& pass, const WarmUp& what,
             const std::vector<models::SequenceChunk>& chunks) {
  std::vector<kernels::TokenDraw> draws(chunks.size());
  for (kernels::TokenDraw& draw : draws) draw.settings.temperature = 0.0;
  std::vector<kernels::ChosenToken> chosen(chunks.size());
  return pass.choose(ctx, what.images, chunks, draws, chosen);
}

Result<> run_batches(const kernels::OpContext& ctx, models::InferencePass& pass,
                     const WarmUp& what) {
  const std::uint32_t batch = std::min(what.batch_max, kWarmBatchMax);
  std::deque<models::KvCache> caches;
  std::vector<models::SequenceChunk> chunks;
  while (chunks.size() < batch) {
    caches.emplace_back(what.description, 1, ctx.device);
    chunks.push_back({&caches.back(), std::span(&kToken, 1)});
    for (int time = 0; time < kTimes; ++time) {
      for (models::KvCache& cache : caches) cache.truncate(0);
      if (auto ran = run(ctx, pass, what, chunks); !ran) return ran;
    }
  }
  return {};
}

// What grows with positions has its last size from then on: captured steps keep its address.
Result<> run_longest(const kernels::OpContext& ctx, models::InferencePass& pass,
                     const WarmUp& what) {
  models::KvCache cache(what.description, what.tokens_max, ctx.device);
  cache.pretend(what.tokens_max - 1);
  return run(ctx, pass, what, {{&cache, std::span(&kToken, 1)}});
}

}  // namespace

Result<> warm_up(const kernels::OpContext& ctx, models::InferencePass& pass, const WarmUp& what) {
  const std::vector<std::int32_t> prompt(what.step_tokens, kToken);
  {
    models::KvCache cache(what.description, what.step_tokens, ctx.device);
    if (auto ran = run(ctx, pass, what, {{&cache, prompt}}); !ran) return ran;
  }
  if (auto ran = run_longest(ctx, pass, what); !ran) return ran;
  return run_batches(ctx, pass, what);
}

}  // namespace tutti::serving
