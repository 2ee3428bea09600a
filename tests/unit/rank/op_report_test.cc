#include "jobs/rank/op_report.h"

#include <catch2/catch.hpp>

namespace tutti::rank {

using kernels::OpCount;

TEST_CASE("op report: the most expensive op comes first, with its rates") {
  const OpCount counts[] = {
      {.name = "add_into", .calls = 3, .seconds = 0.5, .bytes = 6'000'000'000},
      {.name = "product_nt",
       .calls = 1200,
       .seconds = 2.0,
       .flop = 200'000'000'000,
       .bytes = 5'000'000'000},
      {.name = "rotary_angles", .calls = 1}};
  CHECK(describe_ops(counts) ==
        "ops: product_nt 2 s (1200 calls, 100.0 GFLOP/s, 2.5 GB/s), add_into 0.5 s (3 calls, 12.0 "
        "GB/s), "
        "rotary_angles 0 s (1 calls)");
}

TEST_CASE("op report: of many ops the cheap ones are counted, of none nothing is said") {
  std::vector<OpCount> counts;
  for (int i = 0; i < 11; ++i) counts.push_back({.name = "op", .calls = 1, .seconds = 1.0 * i});
  CHECK(describe_ops(counts).ends_with(", and 3 more"));
  CHECK(describe_ops({}).empty());
}

TEST_CASE("op report: how much of the memory that asked for huge pages has them") {
  CHECK(describe_huge_pages({.asked = std::size_t{640} << 20, .given = std::size_t{638} << 20}) ==
        "huge pages: 640 MiB asked for, 638 MiB given");
  CHECK(describe_huge_pages({}).empty());
}

}  // namespace tutti::rank
