// The GPU's kernels on the emulation: three seeds in each of its two orders, which must give the
// same bits.
//
// The cases hand ops host vectors. So that they run as they are, this binary's heap is memory of
// the device (mapped_heap.h), and each op ends before the next begins. A GPU's bits are a profile
// of their own: the committed hashes of the portable profile say nothing about them.
#include <cstdlib>

#include "kernels/cuda/device.h"
#include "tests/golden/portable.h"
#include "tests/parity/harness.h"
#include "tests/support/mapped_heap.h"

namespace tutti::test {

void Golden::check() const {}

}  // namespace tutti::test

namespace tutti::kernels::parity {

namespace {

using emulation::Order;

const OpContext& on_device() {
  static ThreadPool pool(1);
  static const auto device = [] {
    auto opened = cuda::CudaDevice::open({.waiting = cuda::DeviceOptions::Waiting::after_each_op});
    if (!opened) std::abort();  // no case is under way yet
    test::open_heap_or_skip("emulation_parity");
    return *std::move(opened);
  }();
  static const OpContext ctx{&pool, device.get()};
  return ctx;
}

// Before the first case makes its data.
const OpContext& opened_early = on_device();

}  // namespace

bool continues_chains() { return false; }

bool is_emulated() { return true; }

Floats on_all_paths(const std::function<Floats(const OpContext&)>& op) {
  Floats first;
  for (const std::uint64_t seed : {1, 2, 3}) {
    for (const Order::Kind kind : {Order::Kind::random, Order::Kind::warp_priority}) {
      emulation::set_order({kind, seed});
      Floats result = op(on_device());
      INFO("seed " << seed << (kind == Order::Kind::random ? ", random order" : ", by warps"));
      REQUIRE(emulation::device_fault() == "");
      REQUIRE(test::heap_overrun() == "");
      if (seed == 1 && kind == Order::Kind::random) {
        first = std::move(result);
      } else {
        REQUIRE(same_bits(result, first));
      }
    }
  }
  emulation::set_order({});
  return first;
}

const OpContext& single() { return opened_early; }

}  // namespace tutti::kernels::parity
