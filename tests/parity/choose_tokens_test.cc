// The next tokens of a batch: each row as if it were alone, and as the sampler draws it.
#include "kernels/ops/choose_tokens.h"

#include <cstring>
#include <limits>

#include "kernels/ops/cross_entropy.h"
#include "kernels/tensor/shared_loops.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

constexpr Index kColumns = 700;

// Greedy, drawn under several settings, given; with and without a log-probability.
std::vector<TokenDraw> draws_of_all_kinds() {
  return {{.settings = {.temperature = 0.0}, .position = 1, .logprob = true},
          {.settings = {.temperature = 0.7, .seed = 3}, .position = 2, .logprob = true},
          {.settings = {.top_k = 20, .seed = 4}, .position = 3},
          {.settings = {.top_p = 0.9, .seed = 5}, .position = 4, .logprob = true},
          {.settings = {.seed = 6, .min_p = 0.05}, .position = 5, .logprob = true},
          {.settings = {.seed = 7, .typical_p = 0.8}, .position = 6},
          {.settings = {}, .given = 0, .logprob = true},
          {.settings = {}, .given = kColumns - 1}};
}

Floats logits_of(Index rows) {
  Floats logits = draw(rows * kColumns, 1);
  for (float& logit : logits) logit *= 8.0F;
  return logits;
}

// Tokens as whole numbers, then log-probabilities.
Floats choose(const OpContext& ctx, const Floats& logits, std::span<const TokenDraw> draws) {
  std::vector<ChosenToken> chosen(draws.size());
  REQUIRE(choose_tokens(
      ctx, {matrix(logits, static_cast<Index>(draws.size()), kColumns), draws, chosen.data()}));
  Floats result;
  for (const ChosenToken& one : chosen) result.push_back(static_cast<float>(one.token));
  for (const ChosenToken& one : chosen) result.push_back(one.logprob);
  return result;
}

}  // namespace

TEST_CASE("choose tokens: the sampler's draw, and its probability under the plain softmax") {
  Golden golden("choose tokens");
  const std::vector<TokenDraw> draws = draws_of_all_kinds();
  const auto rows = static_cast<Index>(draws.size());
  const Floats logits = logits_of(rows);
  const Floats chosen = on_all_paths(golden, [&](const OpContext& ctx) {
    const std::uint64_t before = shared_loops();
    Floats result = choose(ctx, logits, draws);
    CHECK((shared_loops() > before) == (ctx.pool->threads() > 1));
    return result;
  });
  Floats scores(logits.size());
  REQUIRE(log_softmax(single(), matrix(logits, rows, kColumns), matrix(scores, rows, kColumns)));
  const Table exact = reference::log_softmax(Table(matrix(logits, rows, kColumns)));
  for (std::size_t r = 0; r < draws.size(); ++r) {
    INFO("row " << r);
    const std::span row = std::span(logits).subspan(r * kColumns, kColumns);
    Sampler sampler;
    const std::int32_t token = draws[r].given >= 0
                                   ? draws[r].given
                                   : sampler.sample(row, draws[r].settings, draws[r].position);
    CHECK(chosen[r] == static_cast<float>(token));
    const std::size_t place = r * kColumns + static_cast<std::size_t>(token);
    const float logprob = chosen[draws.size() + r];
    CHECK(logprob == (draws[r].logprob ? scores[place] : 0.0F));
    if (draws[r].logprob) {
      CHECK(std::abs(static_cast<double>(logprob) - exact.data[place]) <=
            tolerance(kColumns, 1.0) + tolerance(1, std::abs(exact.data[place])));
    }
  }
  golden.check();
}

TEST_CASE("choose tokens: a row's token depends on no other row, also where that is not finite") {
  const std::vector<TokenDraw> draws = draws_of_all_kinds();
  const auto rows = static_cast<Index>(draws.size());
  const Floats logits = logits_of(rows);
  const Floats all = choose(single(), logits, draws);
  for (std::size_t r = 0; r < draws.size(); ++r) {
    const Floats row(logits.begin() + static_cast<std::ptrdiff_t>(r) * kColumns,
                     logits.begin() + static_cast<std::ptrdiff_t>(r + 1) * kColumns);
    const Floats alone = choose(single(), row, std::span(draws).subspan(r, 1));
    CHECK(alone[0] == all[r]);
    CHECK(alone[1] == all[draws.size() + r]);
  }
  Floats spoiled = logits;
  for (Index c = 0; c < kColumns; ++c) {
    spoiled[static_cast<std::size_t>(kColumns + c)] = std::numeric_limits<float>::quiet_NaN();
  }
  Floats beside = on_all_paths([&](const OpContext& ctx) {
    Floats chosen = choose(ctx, spoiled, draws);
    CHECK(chosen[1] >= 0.0F);  // some token of the row
    CHECK(chosen[1] < static_cast<float>(kColumns));
    CHECK(std::isnan(chosen[draws.size() + 1]));
    chosen[1] = all[1];
    chosen[draws.size() + 1] = all[draws.size() + 1];
    return chosen;
  });
  CHECK(same_bits(beside, all));
}

TEST_CASE("choose tokens: rows without a draw, and tokens that a row does not have, are refused") {
  const Floats logits = logits_of(2);
  const std::vector<TokenDraw> draws = {
      {.settings = {}, .given = 1}, {.settings = {}, .given = static_cast<std::int32_t>(kColumns)}};
  std::vector<ChosenToken> chosen(2);
  const auto run = [&](Index rows, std::size_t first, std::size_t count) {
    return choose_tokens(single(), {matrix(logits, rows, kColumns),
                                    std::span(draws).subspan(first, count), chosen.data()});
  };
  for (const auto& refused : {run(2, 0, 2), run(1, 1, 1), run(2, 0, 1), run(1, 0, 2)}) {
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::invalid_argument);
  }
  CHECK(chosen[0].token == 0);
  CHECK(run(0, 0, 0));
  CHECK(run(1, 0, 1));
  CHECK(chosen[0].token == 1);
}

}  // namespace tutti::kernels::parity
