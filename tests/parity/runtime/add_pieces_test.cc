// The last additions of the tree over shards with the sums of squares behind them; on CPUs only.
#include <array>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "kernels/ops/add.h"
#include "kernels/ops/gradient_norm.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {

TEST_CASE(
    "add pieces: the tree's additions and the sums of squares, as the ops one after the other") {
  Golden golden("add pieces");
  constexpr Index kCount = 65536 + 16 + 5000;
  const std::vector<AddPieces::Block> blocks = {{16, 65536}, {16 + 65536, 4099}};
  const std::vector<PieceSum::Addition> additions = {{0, 1}, {2, 3}, {0, 2}};
  const std::array<Floats, 4> data = {draw(kCount, 1), draw(kCount, 2), draw(kCount, 3),
                                      draw(kCount, 4)};
  const auto run = [&](const OpContext& ctx, bool in_place, float spoiled = 0.0F) {
    std::array<Floats, 4> used = data;
    if (spoiled != 0.0F) used[3][16 + 77] = spoiled;
    std::vector<float*> pieces;
    for (Floats& piece : used) pieces.push_back(piece.data());
    Floats apart(static_cast<std::size_t>(kCount));
    Floats& sum = in_place ? used[0] : apart;
    std::vector<double> squares(2);
    REQUIRE(add_pieces(ctx, {.pieces = pieces,
                             .additions = additions,
                             .count = kCount,
                             .sum = sum.data(),
                             .blocks = blocks,
                             .squares = squares}));
    Floats bits = sum;
    bits.resize(bits.size() + 4);
    std::memcpy(bits.data() + kCount, squares.data(), 16);
    return bits;
  };
  const Floats found = on_all_paths(golden, [&](const OpContext& ctx) { return run(ctx, true); });
  REQUIRE(same_bits(found, run(single(), false)));
  std::array<Floats, 4> level = data;
  for (const auto& addition : additions) {
    REQUIRE(add_into(single(), level[addition.into], level[addition.from]));
  }
  Floats expected = level[0];
  std::vector<double> squares(2);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto begin = static_cast<std::size_t>(blocks[i].begin);
    const auto elements = static_cast<std::size_t>(blocks[i].elements);
    REQUIRE(square_sums(single(), std::span(expected).subspan(begin, elements),
                        std::span(squares).subspan(i, 1)));
  }
  expected.resize(expected.size() + 4);
  std::memcpy(expected.data() + kCount, squares.data(), 16);
  REQUIRE(same_bits(found, expected));
  golden.check();

  // What is not finite spoils its element and its block's sum, no others.
  for (const float spoiled : {std::numeric_limits<float>::infinity(), std::nanf(""), 3.4e38F}) {
    Floats bad = on_all_paths([&](const OpContext& ctx) {
      Floats bits = run(ctx, true, spoiled);
      double squares_of[2];
      std::memcpy(squares_of, bits.data() + kCount, 16);
      REQUIRE(std::isfinite(squares_of[0]) == std::isfinite(spoiled));
      REQUIRE(std::isfinite(bits[16 + 77]) == std::isfinite(spoiled));
      REQUIRE(std::isnan(bits[16 + 77]) == std::isnan(spoiled));
      std::copy_n(found.begin() + kCount, 2, bits.begin() + kCount);
      bits[16 + 77] = found[16 + 77];
      return bits;
    });
    REQUIRE(same_bits(bad, found));
  }

  std::vector<float*> one = {level[0].data()};
  AddPieces args{.pieces = one, .additions = additions, .count = kCount, .sum = one[0]};
  REQUIRE(add_pieces(single(), args).error().code == ErrorCode::invalid_argument);
  args.additions = {};
  REQUIRE(add_pieces(single(), args));
  args.blocks = blocks;
  REQUIRE(add_pieces(single(), args).error().code == ErrorCode::invalid_argument);
  args.squares = squares;
  args.count = 69000;
  REQUIRE(add_pieces(single(), args).error().code == ErrorCode::invalid_argument);
}

}  // namespace tutti::kernels::parity
