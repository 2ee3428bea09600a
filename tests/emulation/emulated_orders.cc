#include "tests/emulation/device_runs.h"

namespace tutti::test {

namespace {

// Before the first case makes its data.
[[maybe_unused]] const bool kOpenedEarly = [] {
  open_heap();
  return true;
}();

}  // namespace

void in_each_order(const std::function<void()>& run) {
  using emulation::Order;
  for (const std::uint64_t seed : {1, 2, 3}) {
    for (const auto kind : {Order::Kind::random, Order::Kind::warp_priority}) {
      emulation::set_order({kind, seed});
      INFO("seed " << seed << (kind == Order::Kind::random ? ", random order" : ", by warps"));
      run();
      REQUIRE(emulation::device_fault() == "");
      REQUIRE(heap_overrun() == "");
    }
  }
  emulation::set_order({});
}

}  // namespace tutti::test
