#include "kernels/ops/choose_tokens.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/loss/row_log_sum.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

void choose(const ChooseTokens& args, Index row, Sampler& sampler) {
  const Index width = args.logits.columns;
  const float* const x = args.logits.row(row);
  const TokenDraw& draw = args.draws[static_cast<std::size_t>(row)];
  ChosenToken& chosen = args.chosen[row];
  chosen = {draw.given, 0.0F};
  if (draw.given < 0) {
    chosen.token =
        sampler.sample({x, static_cast<std::size_t>(width)}, draw.settings, draw.position);
  }
  if (!draw.logprob) return;
  chosen.logprob = static_cast<float>(static_cast<double>(x[chosen.token]) - row_log_sum(x, width));
}

}  // namespace

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
  const OpTimer timer(Op::choose_tokens, {.bytes = 4 * args.logits.rows * width});
  // Each part keeps its rows and its sampler, whoever takes it: scratch memory that has grown stays
  // from step to step.
  thread_local std::vector<Sampler> samplers;
  const Index parts = std::min<Index>(args.logits.rows, ctx.pool->threads());
  if (static_cast<Index>(samplers.size()) < parts) samplers.resize(static_cast<std::size_t>(parts));
  ctx.pool->parallel_for(parts, 1, [&, own = samplers.data()](int, Index begin, Index end) {
    for (Index part = begin; part < end; ++part) {
      for (Index row = part; row < args.logits.rows; row += parts) choose(args, row, own[part]);
    }
  });
  return {};
}

}  // namespace tutti::kernels
