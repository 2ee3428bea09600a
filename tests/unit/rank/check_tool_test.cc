#include "jobs/rank/check_tool.h"

#include <catch2/catch.hpp>

#include "kernels/ceilings/ceilings.h"
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

}  // namespace
}  // namespace tutti::rank
