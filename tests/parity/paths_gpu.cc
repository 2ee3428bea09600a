// The GPU's kernels on a real GPU: each op twice, which must give the same bits.
//
// The cases hand ops host vectors. So that they run as they are, this binary's heap is memory that
// the GPU sees too (cudaMallocManaged), and each op ends before the next begins. A GPU's bits are a
// profile of their own: the committed hashes of the portable profile say nothing about them.
#include <cstdlib>
#include <mutex>
#include <new>

#include "kernels/cuda/device.h"
#include "tests/golden/portable.h"
#include "tests/parity/harness.h"

namespace {

// One piece of managed memory, handed out upwards and never taken back: a run of the cases needs
// less.
constexpr std::size_t kHeapBytes = std::size_t{8} << 30;
constexpr std::size_t kAlignment = 64;
// Small objects (strings, the tests' own books) stay on the host.
constexpr std::size_t kManagedFrom = 16;

struct ManagedHeap {
  std::mutex mutex;
  std::byte* memory = nullptr;
  std::size_t used = 0;
  bool failed = false;

  void* take(std::size_t bytes) {
    const std::lock_guard lock(mutex);
    if (memory == nullptr && !failed) {
      void* made = nullptr;
      failed = cudaMallocManaged(&made, kHeapBytes) != cudaSuccess;
      memory = static_cast<std::byte*>(made);
    }
    const std::size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (failed || used + whole > kHeapBytes) return nullptr;
    void* const taken = memory + used;
    used += whole;
    return taken;
  }
  bool owns(const void* pointer) const {
    const auto* const byte = static_cast<const std::byte*>(pointer);
    return memory != nullptr && byte >= memory && byte < memory + kHeapBytes;
  }
};

ManagedHeap heap;
bool heap_is_open = false;  // once the device is; what came before stays on the host

}  // namespace

void* operator new(std::size_t bytes) {
  void* taken = nullptr;
  if (heap_is_open && bytes >= kManagedFrom) taken = heap.take(bytes);
  if (taken == nullptr) taken = std::malloc(bytes == 0 ? 1 : bytes);
  if (taken == nullptr) throw std::bad_alloc();
  return taken;
}
void operator delete(void* pointer) noexcept {
  if (!heap.owns(pointer)) std::free(pointer);
}
void operator delete(void* pointer, std::size_t) noexcept { operator delete(pointer); }

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
    heap_is_open = true;
    return *std::move(opened);
  }();
  static const OpContext ctx{&pool, device.get()};
  return ctx;
}

// Before the first case makes its data.
const OpContext& opened_early = on_device();

}  // namespace

bool continues_chains() { return false; }

Floats on_all_paths(const std::function<Floats(const OpContext&)>& op) {
  Floats first = op(on_device());
  REQUIRE(same_bits(op(on_device()), first));
  return first;
}

const OpContext& single() { return opened_early; }

}  // namespace tutti::kernels::parity
