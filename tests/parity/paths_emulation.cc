// The GPU's kernels on the emulation: three seeds in each of its two orders, which must give the
// same bits.
//
// Each op ends before the next begins, and device memory is host memory here, so the cases run as
// they are. A GPU's bits are a profile of their own: the committed hashes of the portable profile
// say nothing about them.
#include "kernels/cuda/device.h"
#include "tests/golden/portable.h"
#include "tests/parity/harness.h"

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
    REQUIRE(opened);
    return *std::move(opened);
  }();
  static const OpContext ctx{&pool, device.get()};
  return ctx;
}

}  // namespace

bool continues_chains() { return false; }

Floats on_all_paths(const std::function<Floats(const OpContext&)>& op) {
  Floats first;
  for (const std::uint64_t seed : {1, 2, 3}) {
    for (const Order::Kind kind : {Order::Kind::random, Order::Kind::warp_priority}) {
      emulation::set_order({kind, seed});
      Floats result = op(on_device());
      INFO("seed " << seed << (kind == Order::Kind::random ? ", random order" : ", by warps"));
      REQUIRE(emulation::device_fault() == "");
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

const OpContext& single() { return on_device(); }

}  // namespace tutti::kernels::parity
