// The ceilings that shares are of: each is measured where the machine has it.
#include "kernels/ceilings/ceilings.h"

#include <map>
#include <string_view>

#include "tests/parity/harness.h"

namespace tutti::kernels::parity {

TEST_CASE("ceilings: what this machine has is above zero, and no cache is half as slow as memory") {
  ThreadPool pool(1);
  std::map<std::string_view, double> found;
  for (const CeilingKind& kind : ceiling_kinds()) {
    const Ceiling measured = kind.measure(pool, {Duration::zero()});
    if (!measured) continue;
    INFO(std::string(kind.name) << ": " << *measured);
    CHECK((*measured > 0.0 && std::isfinite(*measured)));
    found[kind.name] = *measured;
  }
  for (const char* const everywhere : {"fp32 multiply-add", "read, memory", "copy, memory"}) {
    CHECK(found.contains(everywhere));
  }
  // Factors of several lie between them, whoever else is busy.
  for (const char* const cache : {"read, second cache", "read, third cache"}) {
    if (found.contains(cache)) CHECK(found[cache] > 0.5 * found["read, memory"]);
  }
}

TEST_CASE("ceilings: vectors pass scalars, and a path lacks what its instructions do") {
  ThreadPool pool(1);
  const CpuPath before = cpu_path();
  REQUIRE(choose_cpu_path(CpuPath::scalar));
  const double scalar = fp32_ceiling(pool, {Duration::zero()}).value();
  CHECK_FALSE(int8_ceiling(pool, {Duration::zero()}));
  REQUIRE(choose_cpu_path(CpuPath::avx2));
  CHECK(fp32_ceiling(pool, {Duration::zero()}).value() > scalar);
  CHECK_FALSE(bf16_ceiling(pool, {Duration::zero()}));
  CHECK_FALSE(bf16_tiles_ceiling(pool, {Duration::zero()}));
  REQUIRE(choose_cpu_path(before));
}

}  // namespace tutti::kernels::parity
