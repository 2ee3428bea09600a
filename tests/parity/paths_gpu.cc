// The GPU's kernels on a real GPU: each op twice, which must give the same bits.
//
// The cases hand ops host vectors. So that they run as they are, this binary's heap is memory that
// the GPU sees too (mapped_heap.h), and each op ends before the next begins. A GPU's bits are a
// profile of their own: the committed hashes of the portable profile say nothing about them.
#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/device.h"
#include "tests/emulation/device_runs.h"
#include "tests/golden/portable.h"
#include "tests/parity/harness.h"
#include "tests/support/mapped_heap.h"

namespace tutti::test {

void Golden::check() const {}

}  // namespace tutti::test

namespace tutti::kernels::parity {

namespace {

const OpContext& on_device() {
  static ThreadPool pool(1);
  static const auto device = [] {
    auto opened = cuda::CudaDevice::open({.waiting = cuda::DeviceOptions::Waiting::after_each_op});
    if (!opened) {
      std::fprintf(stderr, "parity_gpu: %s\n", opened.error().message.c_str());
      std::_Exit(77);
    }
    test::open_heap_or_skip("parity_gpu");
    return *std::move(opened);
  }();
  static const OpContext ctx{&pool, device.get()};
  return ctx;
}

// Before the first case makes its data.
const OpContext& opened_early = on_device();

}  // namespace

bool continues_chains() { return false; }

bool is_emulated() { return false; }

Floats on_all_paths(const std::function<Floats(const OpContext&)>& op) {
  Floats first = op(on_device());
  REQUIRE(same_bits(op(on_device()), first));
  REQUIRE(test::heap_overrun() == "");
  return first;
}

const OpContext& single() { return opened_early; }

}  // namespace tutti::kernels::parity

namespace tutti::test {

// Whether a wrong write or a race shows in a second run is chance; its bits are compared anyway.
void in_each_order(const std::function<void()>& run) {
  for (int turn = 0; turn < 2; ++turn) run();
  REQUIRE(heap_overrun() == "");
}

}  // namespace tutti::test
