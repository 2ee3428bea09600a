#include "jobs/rank/check_tool.h"

#include <catch2/catch.hpp>

#include <algorithm>

#include "kernels/ceilings/ceilings.h"
#include "kernels/ceilings/products.h"
#include "kernels/ops/cpu_path.h"

namespace tutti::rank {
namespace {

TEST_CASE("check: a deadline that is over and settings that mean nothing have their exit codes") {
  const std::vector<std::string> late = {"--compute", "--deadline", "0", "-o", "json"};
  CHECK(run_check_tool(late) == 3);
  const std::vector<std::vector<std::string>> refused = {
      {"--deadline", "-1"}, {"-o", "yaml"}, {"--threads", "x"}};
  for (const auto& wrong : refused) {
    CHECK(run_check_tool(wrong) == 2);
  }
}

TEST_CASE("check: arithmetic is measured where the path has it, and left out where not") {
  kernels::ThreadPool pool(1);
  const auto before = kernels::cpu_path();
  const auto fp32 = kernels::fp32_ceiling(pool, Duration(0));
  REQUIRE(fp32);
  CHECK(*fp32 > 0);
  REQUIRE(kernels::choose_cpu_path(kernels::CpuPath::scalar));
  CHECK(kernels::fp32_ceiling(pool, Duration(0)));
  CHECK_FALSE(kernels::bf16_ceiling(pool, Duration(0)));
  CHECK_FALSE(kernels::int8_ceiling(pool, Duration(0)));
  REQUIRE(kernels::choose_cpu_path(before));
}

TEST_CASE("check: each product is a share of a ceiling that there is, in its unit") {
  for (const kernels::ProductKind& product : kernels::product_kinds()) {
    const auto ceilings = kernels::ceiling_kinds();
    CHECK(std::any_of(ceilings.begin(), ceilings.end(), [&](const kernels::CeilingKind& ceiling) {
      return ceiling.name == product.of && ceiling.unit == product.unit;
    }));
  }
}

}  // namespace
}  // namespace tutti::rank
