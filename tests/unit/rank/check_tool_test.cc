#include "jobs/rank/check_tool.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <set>
#include <thread>

#include "kernels/ceilings/ceilings.h"
#include "kernels/ceilings/fastest.h"
#include "kernels/ceilings/products.h"
#include "kernels/ceilings/thread_parts.h"
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

TEST_CASE("check: a measurement that passes its deadline leaves the next one its own time") {
  kernels::ThreadPool pool(1);
  const Measure slow = [](kernels::ThreadPool&, const kernels::MeasureTime& time) {
    while (monotonic_now() < time.until) std::this_thread::yield();
    return kernels::Ceiling();
  };
  const Measure quick = [](kernels::ThreadPool&, const kernels::MeasureTime& time) {
    return monotonic_now() < time.until ? kernels::Ceiling(3.0) : std::nullopt;
  };
  const Measure missing = [](kernels::ThreadPool&, const kernels::MeasureTime&) {
    return kernels::Ceiling();
  };
  const InTime late = measure_in_time(slow, pool, std::chrono::milliseconds(5));
  CHECK(late.late);
  CHECK_FALSE(late.reached);
  const InTime next = measure_in_time(quick, pool, std::chrono::hours(1));
  CHECK_FALSE(next.late);
  CHECK(next.reached == 3.0);
  CHECK_FALSE(measure_in_time(missing, pool, std::chrono::hours(1)).late);
  CHECK(measure_in_time(missing, pool, Duration(0)).late);
}

TEST_CASE("check: arithmetic is measured where the path has it, and left out where not") {
  kernels::ThreadPool pool(1);
  const auto before = kernels::cpu_path();
  const auto fp32 = kernels::fp32_ceiling(pool, {Duration(0)});
  REQUIRE(fp32);
  CHECK(*fp32 > 0);
  REQUIRE(kernels::choose_cpu_path(kernels::CpuPath::scalar));
  CHECK(kernels::fp32_ceiling(pool, {Duration(0)}));
  CHECK_FALSE(kernels::bf16_ceiling(pool, {Duration(0)}));
  CHECK_FALSE(kernels::int8_ceiling(pool, {Duration(0)}));
  REQUIRE(kernels::choose_cpu_path(before));
}

TEST_CASE("check: what a deadline comes into is left out, unless each of its loops has run") {
  kernels::ThreadPool pool(1);
  const Instant over = monotonic_now();
  for (const kernels::CeilingKind& kind : kernels::ceiling_kinds()) {
    INFO(kind.name);
    CHECK_FALSE(kind.measure(pool, {std::chrono::hours(1), over}));
  }
  for (const kernels::ProductKind& kind : kernels::product_kinds()) {
    INFO(kind.name);
    CHECK_FALSE(kind.measure(pool, {std::chrono::hours(1), over}));
  }
  // The clock passes `until` in the loop's nth call; the first is to warm up.
  for (const int last : {1, 2, 3}) {
    INFO("in call " << last);
    const Instant until = monotonic_now() + std::chrono::milliseconds(20);
    int calls = 0;
    const std::function<void()> loop = [&] {
      while (++calls == last && monotonic_now() < until) --calls;
    };
    const auto took = kernels::fastest(pool, {std::chrono::hours(1), until}, std::span(&loop, 1));
    CHECK(took.has_value() == (calls > 1));
    CHECK(calls <= last);
  }
}

// Sums of the process's mappings that hold the address; the kernel's words.
std::size_t huge_kilobytes_at(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  std::string line;
  bool inside = false;
  while (std::getline(maps, line)) {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    std::size_t kilobytes = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
      inside = begin <= wanted && wanted < end;
    } else if (inside && std::sscanf(line.c_str(), "AnonHugePages: %zu", &kilobytes) == 1) {
      return kilobytes;
    }
  }
  return 0;
}

TEST_CASE("ceilings: each thread has memory of its own, in pages of the kind that is asked for") {
  constexpr kernels::Index kFloats = 3 << 20;
  kernels::ThreadPool pool(3);
  const kernels::ThreadParts small(pool, kFloats, kernels::Pages::small);
  CHECK(huge_kilobytes_at(small.part(0).data()) == 0);
  std::array<std::thread::id, 3> owner;
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> others{0};
    small.each([&](std::span<float> part) {
      const auto thread = static_cast<std::size_t>((part.data() - small.part(0).data()) /
                                                   static_cast<std::ptrdiff_t>(part.size()));
      const auto own = std::this_thread::get_id();
      if (round > 0 && owner.at(thread) != own) ++others;
      owner.at(thread) = own;
    });
    CHECK(others == 0);
  }
  CHECK(std::set(owner.begin(), owner.end()).size() == 3);
  CHECK(small.floats() == kFloats);
  CHECK(std::ranges::all_of(small.part(2), [](float x) { return x == 1.0F; }));
}

TEST_CASE(
    "check: a bf16 product is measured where the path has its ceiling, and left out where not") {
  kernels::ThreadPool pool(1);
  const auto before = kernels::cpu_path();
  for (const auto path : kernels::kCpuPaths) {
    if (!kernels::choose_cpu_path(path)) continue;
    for (const kernels::ProductKind& product : kernels::product_kinds()) {
      if (!product.of.starts_with("bf16")) continue;  // the others take long on some paths
      INFO(product.name << " on " << to_string(path));
      const auto ceilings = kernels::ceiling_kinds();
      const auto of =
          std::find_if(ceilings.begin(), ceilings.end(),
                       [&](const kernels::CeilingKind& c) { return c.name == product.of; });
      REQUIRE(of != ceilings.end());
      CHECK(product.measure(pool, {Duration(0)}).has_value() ==
            of->measure(pool, {Duration(0)}).has_value());
    }
  }
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
