#include "kernels/ops/choose_tokens.h"

#include <algorithm>

#include "kernels/ops/cross_entropy.h"
#include "kernels/tensor/device.h"

namespace tutti::kernels {

Result<> choose_tokens(const OpContext& ctx, const ChooseTokens& args) {
  const Index width = args.logits.columns;
  const bool fits =
      static_cast<Index>(args.draws.size()) == args.logits.rows &&
      (args.draws.empty() || width > 0) &&
      std::ranges::all_of(args.draws, [&](const TokenDraw& d) { return d.given < width; });
  if (!fits) {
    return Error{ErrorCode::invalid_argument,
                 "choose_tokens: one draw for each row of logits, given tokens among its columns"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  thread_local Sampler sampler;  // its scratch memory stays from step to step
  const ArenaScope scope(ctx.pool->op_scratch());
  const Matrix scores = ctx.pool->op_scratch().matrix(1, width);
  for (Index row = 0; row < args.logits.rows; ++row) {
    const TokenDraw& draw = args.draws[static_cast<std::size_t>(row)];
    const std::span<const float> logits(args.logits.row(row), static_cast<std::size_t>(width));
    ChosenToken& chosen = args.chosen[row];
    chosen = {draw.given, 0.0F};
    if (draw.given < 0) chosen.token = sampler.sample(logits, draw.settings, draw.position);
    if (!draw.logprob) continue;
    if (auto done = log_softmax(ctx, args.logits.row_range(row, 1), scores); !done) return done;
    chosen.logprob = scores.row(0)[chosen.token];
  }
  return {};
}

}  // namespace tutti::kernels
