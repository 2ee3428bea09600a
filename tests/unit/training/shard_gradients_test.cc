// What is told of a range while backward goes on is what the range holds in the end.
#include "jobs/training/shard_gradients.h"

#include <catch2/catch.hpp>
#include <cstring>

#include "jobs/models/description.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using Parts = std::vector<std::vector<float>>;

struct Run {
  std::vector<float> weights;
  kernels::ThreadPool pool{1};
  kernels::OpContext ctx{&pool};

  explicit Run(const models::Decoder& decoder) : weights(decoder.layout().elements()) {
    decoder.initialise(ctx, 3, weights);
  }

  Parts compute(ShardGradients& gradients, const kernels::ShardTree& tree, std::uint32_t rank,
                const models::RangeReady& ready) {
    const std::function<Result<>()> stands = [] { return Result<>(); };
    REQUIRE(gradients.compute({.ctx = ctx,
                               .weights = weights,
                               .tree = tree,
                               .rank = rank,
                               .data_step = 1,
                               .look = stands,
                               .wait = stands,
                               .ready = ready}));
    Parts parts;
    for (const auto& part : gradients.parts()) parts.emplace_back(part.begin(), part.end());
    return parts;
  }
};

bool same_bits(const Parts& a, const Parts& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  });
}

}  // namespace

TEST_CASE("shard gradients: each range is told once, when all parts hold its sum for good") {
  for (const bool tied : {false, true}) {
    test::TinyJob tiny({.micro = 1});
    const auto job = tiny.open();
    auto description = job->decoder.description();
    description.tied = tied;
    const auto decoder = models::Decoder::create(description);
    REQUIRE(decoder);
    const auto order = models::backward_order(decoder->layout());
    CHECK(order.size() == (tied ? 4 : 5));
    Run run(*decoder);
    ShardGradients gradients(*decoder, job->dataset, {.micro = job->micro(nullptr)});
    for (std::uint32_t ranks = 1; ranks <= 8; ++ranks) {
      const auto tree = *kernels::ShardTree::create(8, ranks == 8 ? 5 : 9, ranks);
      for (std::uint32_t rank = 0; rank < ranks; ++rank) {
        CAPTURE(tied, ranks, rank);
        const Parts expected = run.compute(gradients, tree, rank, {});
        Parts told(expected.size(), std::vector<float>(decoder->layout().elements()));
        std::size_t next = 0;
        const Parts parts = run.compute(gradients, tree, rank, [&](std::size_t index) -> Result<> {
          CHECK(index == next++);
          REQUIRE(gradients.parts().size() == expected.size());
          CHECK(gradients.result().data() == gradients.parts()[0].data());
          const auto first = static_cast<std::ptrdiff_t>(order[index].begin);
          for (std::size_t i = 0; i < told.size(); ++i) {
            std::copy_n(gradients.parts()[i].begin() + first, order[index].size(),
                        told[i].begin() + first);
          }
          return {};
        });
        CHECK(next == (expected.empty() ? 0 : order.size()));
        CHECK(same_bits(parts, expected));
        CHECK(same_bits(told, expected));
      }
    }
  }
}

TEST_CASE("shard gradients: an error of who is told ends the computation") {
  const test::TinyJob tiny;
  const auto job = tiny.open();
  Run run(job->decoder);
  ShardGradients gradients(job->decoder, job->dataset, {.micro = job->micro(nullptr)});
  const auto tree = *kernels::ShardTree::create(8, 9, 1);
  const std::function<Result<>()> stands = [] { return Result<>(); };
  const models::RangeReady refuse = [](std::size_t) -> Result<> {
    return Error{ErrorCode::unavailable, "a peer is gone"};
  };
  const auto ended = gradients.compute({.ctx = run.ctx,
                                        .weights = run.weights,
                                        .tree = tree,
                                        .data_step = 0,
                                        .look = stands,
                                        .wait = stands,
                                        .ready = refuse});
  REQUIRE_FALSE(ended);
  CHECK(ended.error() == Error{ErrorCode::unavailable, "a peer is gone"});
}

}  // namespace tutti::training
