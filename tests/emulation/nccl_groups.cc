// The suite of tests/unit/collective over the emulated NCCL: whatever it exchanges goes through
// device memory, so that the library carries it.
#include "tests/emulation/nccl_groups.h"

#include <algorithm>
#include <atomic>
#include <iterator>

#include "kernels/collective/nccl_group.h"
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/unit/collective/rank_threads.h"

namespace tutti::test {

namespace {

using kernels::Communicator;
using kernels::Transfer;
namespace cuda = kernels::cuda;

class ThroughDevice final : public Communicator {
 public:
  explicit ThroughDevice(const std::string& id) {
    auto stream = cuda::make_stream();
    REQUIRE(stream);
    compute_ = *std::move(stream);
    options_.id = id;
    options_.compute = compute_.get();
  }
  void over(std::unique_ptr<Communicator> group) {
    auto made = kernels::NcclGroup::over(std::move(group), options_);
    REQUIRE(made);
    group_ = *std::move(made);
  }

  std::uint32_t rank() const override { return group_->rank(); }
  std::uint32_t size() const override { return group_->size(); }
  Result<> exchange(std::span<const Transfer> transfers) override {
    const emulation::MemoryUse looks;
    std::vector<cuda::DeviceMemory> memory;
    std::vector<Transfer> across(transfers.begin(), transfers.end());
    for (Transfer& transfer : across) {
      auto made = cuda::make_device_memory(transfer.bytes.size());
      if (!made) return std::move(made).error();
      auto* const bytes = static_cast<std::byte*>(made->get());
      std::copy(transfer.bytes.begin(), transfer.bytes.end(), bytes);
      transfer.bytes = {bytes, transfer.bytes.size()};
      memory.push_back(*std::move(made));
    }
    auto exchanged = group_->exchange(across);
    if (!exchanged) {  // it may be used until the group ends
      std::move(memory.begin(), memory.end(), std::back_inserter(in_use_));
    }
    for (std::size_t i = 0; i < across.size(); ++i) {
      if (transfers[i].direction == Transfer::Direction::receive) {
        std::copy(across[i].bytes.begin(), across[i].bytes.end(), transfers[i].bytes.begin());
      }
    }
    return exchanged;
  }
  Result<> look() override { return group_->look(); }
  void abort(std::string_view reason) noexcept override { group_->abort(reason); }
  bool aborted() const noexcept override { return group_->aborted(); }
  std::int32_t lost_peer() const noexcept override { return group_->lost_peer(); }
  std::uint64_t operations() const noexcept override { return group_->operations(); }

 private:
  cuda::Stream compute_;
  kernels::NcclOptions options_;
  std::vector<cuda::DeviceMemory> in_use_;
  std::unique_ptr<Communicator> group_;
};

}  // namespace

std::uint64_t ring_bytes_of_suite() { return kernels::kRingBytes; }

std::string make_group_id() {
  auto id = kernels::make_nccl_id();
  REQUIRE(id);
  return *id;
}

namespace {
std::atomic<Wrapping> wrapping{Wrapping::over_nccl};
}  // namespace

void set_wrapping(Wrapping next) { wrapping = next; }

std::unique_ptr<Communicator> wrap_group(std::unique_ptr<Communicator> group,
                                         const std::string& id) {
  if (wrapping == Wrapping::none) return group;
  auto wrapped = std::make_unique<ThroughDevice>(id);
  wrapped->over(std::move(group));
  return wrapped;
}

}  // namespace tutti::test
