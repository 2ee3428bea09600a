#include "jobs/data/dataset.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/support/temporary_folder.h"

namespace tutti::data {
namespace {

class Files {
 public:
  std::string write(const std::string& name, const std::vector<std::uint32_t>& tokens) {
    const std::string path = (folder_.path() / name).string();
    REQUIRE(write_token_file(path, tokens));
    return path;
  }

 private:
  test::TemporaryFolder folder_;
};

std::vector<std::uint32_t> counted(std::uint32_t count, std::uint32_t first = 0) {
  std::vector<std::uint32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST_CASE("dataset: stored order takes sample i at iT, steps follow each other, epochs join") {
  Files files;
  // 41 tokens, T = 8: five samples; the last ends with the last token.
  const auto dataset = Dataset::open({.tokens = {files.write("a.npy", counted(41))},
                                      .sequence = 8,
                                      .batch = 3,
                                      .vocabulary = 41,
                                      .order = SampleOrder::as_stored});
  REQUIRE(dataset);
  CHECK(dataset->samples() == 5);
  CHECK(dataset->sample_at(0, 2) == 2);
  CHECK(dataset->sample_at(1, 1) == 4);
  CHECK(dataset->sample_at(1, 2) == 0);  // the next epoch fills the step
  std::vector<std::uint32_t> inputs(8), targets(8);
  REQUIRE(dataset->read_pair(1, 1, inputs, targets));
  CHECK(inputs == counted(8, 32));
  CHECK(targets == counted(8, 33));
}

TEST_CASE("dataset: samples run across the borders of files") {
  Files files;
  const auto dataset = Dataset::open(
      {.tokens = {files.write("a.npy", counted(5)), files.write("b.npy", counted(1, 5)),
                  files.write("c.npy", counted(70'000, 6))},
       .sequence = 10,
       .batch = 1,
       .vocabulary = 80'000,
       .order = SampleOrder::as_stored});
  REQUIRE(dataset);
  std::vector<std::uint32_t> tokens(11);
  REQUIRE(dataset->read(0, tokens));
  CHECK(tokens == counted(11));
  REQUIRE(dataset->read(dataset->samples() - 1, tokens));
  CHECK(tokens == counted(11, 69'990));
}

TEST_CASE("dataset: a shuffled epoch has every sample once, and epochs and seeds differ") {
  Files files;
  DatasetOptions options{.tokens = {files.write("a.npy", counted(1'001))},
                         .sequence = 10,
                         .batch = 25,
                         .vocabulary = 2'000,
                         .seed = 7};
  const auto epoch = [](const Dataset& dataset, std::uint64_t number) {
    std::vector<std::uint64_t> samples;
    for (std::uint64_t p = 100 * number; p < 100 * (number + 1); ++p) {
      samples.push_back(dataset.sample_at(p / 25, static_cast<std::uint32_t>(p % 25)));
    }
    return samples;
  };
  const auto dataset = Dataset::open(options);
  REQUIRE(dataset);
  const auto first = epoch(*dataset, 0);
  CHECK(std::set<std::uint64_t>(first.begin(), first.end()).size() == 100);
  CHECK_FALSE(std::is_sorted(first.begin(), first.end()));
  CHECK(first != epoch(*dataset, 1));
  options.seed = 8;
  CHECK(first != epoch(*Dataset::open(options), 0));
  // Pinned: a change here changes every shuffled training run.
  CHECK(std::vector(first.begin(), first.begin() + 4) == std::vector<std::uint64_t>{15, 71, 53, 6});
}

TEST_CASE("dataset: the permutation is one for every size") {
  for (std::uint64_t count : {1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 1'000}) {
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < count; ++i) seen.insert(permuted(i, count, 42));
    CHECK(seen.size() == count);
    CHECK(*seen.rbegin() == count - 1);
  }
  CHECK(permuted(3, std::uint64_t{1} << 60, 1) < std::uint64_t{1} << 60);
}

TEST_CASE("dataset: what cannot be trained on is named") {
  Files files;
  const auto open = [](std::vector<std::string> tokens, std::uint32_t sequence) {
    const auto dataset = Dataset::open(
        {.tokens = std::move(tokens), .sequence = sequence, .batch = 1, .vocabulary = 100});
    REQUIRE_FALSE(dataset);
    return dataset.error();
  };
  CHECK(open({}, 4).code == ErrorCode::invalid_argument);
  CHECK(open({"/none.npy"}, 4).code == ErrorCode::not_found);
  CHECK(open({files.write("empty.npy", {})}, 4).message.find("holds no tokens") !=
        std::string::npos);
  CHECK(open({files.write("short.npy", counted(64))}, 64).message.find("fewer than one sample") !=
        std::string::npos);
  CHECK(open({files.write("outside.npy", counted(110, 95))}, 4)
            .message.find("token 100 at position 5 is outside the vocabulary of 100") !=
        std::string::npos);
}

}  // namespace
}  // namespace tutti::data
