#include "jobs/serving/scorer.h"

#include <algorithm>

#include "jobs/models/inference_pass.h"
#include "kernels/ops/cross_entropy.h"

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
  models::InferencePass pass(*model.decoder, {.rows_max = kRowsMax, .samples_max = 1});
  models::KvCache cache(description, window);
  std::vector<float> logits(rows_max * width);
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
      const std::span<float> rows = std::span(logits).first(scored ? count * width : 0);
      const Result<> run = model.images != nullptr
                               ? pass.run(ctx, *model.images, {&chunk, 1}, rows)
                               : pass.run(ctx, model.weights, {&chunk, 1}, rows);
      if (!run) {
        return run.error();
      }
      if (scored) {
        const kernels::Matrix matrix{rows.data(), static_cast<kernels::Index>(count),
                                     static_cast<kernels::Index>(width)};
        if (Result<> done = kernels::log_softmax(ctx, matrix, matrix); !done) return done.error();
        for (std::size_t i = 0; i < count; ++i) {
          scores.push_back(rows[i * width + static_cast<std::size_t>(tokens[at + i + 1])]);
        }
      }
      at += count;
    }
    if (end == inputs) return scores;
    begin = scores.size() - window / 2;
  }
}

}  // namespace tutti::serving
