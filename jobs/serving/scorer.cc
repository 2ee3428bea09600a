#include "jobs/serving/scorer.h"

#include <algorithm>

#include "jobs/models/inference_pass.h"

namespace tutti::serving {
namespace {

constexpr std::uint64_t kLogitBytesMax = std::uint64_t{64} << 20;
constexpr std::uint32_t kRowsMax = 256;

}  // namespace

Result<std::vector<float>> score_tokens(const EngineModel& model, kernels::OpContext ctx,
                                        std::span<const std::int32_t> tokens,
                                        std::uint32_t window) {
  if (tokens.size() < 2) {
    return Error{ErrorCode::invalid_argument, "at least two tokens are needed to score"};
  }
  const models::DecoderDescription& description = model.decoder->description();
  const std::size_t width = description.vocabulary;
  if (window == 0 || window > description.positions_max) window = description.positions_max;
  window = static_cast<std::uint32_t>(std::min<std::size_t>(window, tokens.size() - 1));
  const auto rows_max = static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(kLogitBytesMax / (4 * width), 1, kRowsMax));
  models::InferencePass pass(*model.decoder, {.rows_max = kRowsMax, .samples_max = 1}, ctx.device);
  models::KvCache cache(description, window, ctx.device);
  std::vector<kernels::TokenDraw> draws;
  std::vector<kernels::ChosenToken> chosen;
  std::vector<float> scores;
  scores.reserve(tokens.size() - 1);

  // Token i gives the score of token i + 1; the last token gives none.
  const std::size_t inputs = tokens.size() - 1;
  for (std::size_t begin = 0;;) {
    const std::size_t end = std::min(begin + window, inputs);
    cache.truncate(0);
    for (std::size_t at = begin; at < end;) {
      const bool scored = at >= scores.size();
      const std::size_t limit = scored ? at + rows_max : std::min(at + kRowsMax, scores.size());
      const std::size_t count = std::min(limit, end) - at;
      const models::SequenceChunk chunk{&cache, tokens.subspan(at, count),
                                        scored ? models::LogitRows::all : models::LogitRows::none};
      draws.clear();
      for (std::size_t i = at; scored && i < at + count; ++i) {
        kernels::TokenDraw draw;
        draw.given = tokens[i + 1];
        draw.logprob = true;
        draws.push_back(draw);
      }
      chosen.resize(draws.size());
      if (auto ran = pass.choose(ctx, *model.images, {&chunk, 1}, draws, chosen); !ran) {
        return ran.error();
      }
      for (const kernels::ChosenToken& one : chosen) scores.push_back(one.logprob);
      at += count;
    }
    if (end == inputs) return scores;
    begin = scores.size() - window / 2;
  }
}

}  // namespace tutti::serving
