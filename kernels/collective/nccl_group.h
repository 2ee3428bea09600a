// A group whose device memory travels by NCCL: one communicator of the library for a generation,
// beside the sockets that the ranks have anyway.
//
// The sockets (`control`) carry what is host memory (votes, notes, states) and tell of deaths and
// aborts; NCCL carries what is device memory, by grouped send and receive only: no sum of its own,
// whose order would be its own (DESIGN numerics). Rank 0's identifier comes with its address in the
// coordinator's FormGroup, so no port of NCCL's is agreed elsewhere.
//
// The library's communicator is made in the first exchange, without blocking: its making is a
// meeting of all ranks, and in a later exchange some may have no device memory to move. All waiting
// is a loop that looks at the library's asynchronous error, at abort() and at the clock, also for
// what the rank's own device computes meanwhile; so an abort from any thread is seen at once. The
// first reason breaks the group, which its owner then lets go: that tells the peers, over the
// sockets, and ends the library's communicator, where nobody else uses it any more. If that ending
// hangs, in whichever of its calls, the process ends as the infrastructure's failure, because
// nothing else gets the device back.
//
// While what was begun moves, the computing thread may be inside a call that waits for the device
// (an op that takes its first memory), and so for a peer that is gone. Such a thread sees no abort:
// if it does not come out in time, the process ends too.
//
// A group that stands to its end is finalized and destroyed, so that no peer's device is still read
// or written by it; all ranks do that, within a deadline. A group that broke, or whose peers do not
// come to the end, is aborted.
//
// What was begun moves on a stream of its own, behind an event of the compute stream. An ending
// waits for that stream too: afterwards nothing of the group touches anyone's memory.
//
// Ownership: owns the sockets' group and the communicator; the device outlives it. Threads, errors:
// communicator.h.
#pragma once

#include <nccl.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernels/collective/communicator.h"
#include "kernels/cuda/runtime.h"

namespace tutti::kernels {

// 256 hexadecimal digits that let ranks meet, and the library's version; of rank 0, once a
// generation. Errors: unavailable.
Result<std::string> make_nccl_id();

// "2.27.3".
std::string nccl_version();

struct NcclOptions {
  std::string id = {};
  cudaStream_t compute = nullptr;    // where the memory that is sent was written
  cudaStream_t transfers = nullptr;  // where it moves; null: a stream that the group makes
  Duration form_deadline = std::chrono::seconds(60);
  Duration operation_deadline = std::chrono::minutes(30);  // 0: none
  Duration finalize_deadline = std::chrono::seconds(5);
  // From when what was computed before the transfers is done, which has its own time before; and
  // the one above: the process ends.
  Duration abort_deadline = std::chrono::seconds(10);
  Duration compute_deadline = std::chrono::seconds(30);
  // From an abort while something moves until the computing thread has seen it: a call of a pass
  // takes less than seconds (memory_estimate.h).
  Duration seen_deadline = std::chrono::seconds(30);
};

class NcclGroup final : public Communicator {
 public:
  // Errors: invalid_argument (not an identifier), unsupported (made by another version of the
  // library), unavailable (no stream).
  static Result<std::unique_ptr<Communicator>> over(std::unique_ptr<Communicator> control,
                                                    const NcclOptions& options);
  ~NcclGroup() override;

  std::uint32_t rank() const override { return control_->rank(); }
  std::uint32_t size() const override { return control_->size(); }
  Result<> exchange(std::span<const Transfer> transfers) override;
  Result<> begin(std::span<const Transfer> transfers) override;
  Result<> finish() override;
  Result<> look() override;
  Result<> wait_for_device() override;
  void abort(std::string_view reason) noexcept override;
  bool aborted() const noexcept override { return control_->aborted(); }
  std::int32_t lost_peer() const noexcept override { return control_->lost_peer(); }
  bool moves_device_memory() const noexcept override { return true; }
  std::uint64_t operations() const noexcept override { return control_->operations(); }

 private:
  // Whether what was begun still moves, and a thread that ends the process if that does not end.
  struct Watch {
    std::mutex mutex;
    std::condition_variable changed;
    bool moves = false;
    bool watched = false;
  };

  NcclGroup(std::unique_ptr<Communicator> control, const NcclOptions& options)
      : control_(std::move(control)), options_(options) {}

  void set_moves(bool moves);

  void announce();
  Result<> compare_lengths() const;
  Result<> begin_on_device();
  Result<> form();
  Result<> start_transfers();
  Result<> wait_for_library(std::string_view what, Duration deadline);
  Result<> wait_for_stream(cudaStream_t stream, std::string_view what);
  // At the sockets, and at what the library found meanwhile.
  Result<> look_at_all(std::string_view what);
  Error break_off(Error error);
  void end_communicator(bool stands);
  bool computes() const;

  std::unique_ptr<Communicator> control_;
  NcclOptions options_;
  ncclUniqueId id_ = {};
  int own_device_ = 0;  // of the thread that made the group
  ncclComm_t comm_ = nullptr;
  cuda::Stream own_stream_;
  cudaStream_t stream_ = nullptr;
  cuda::Event written_;
  std::vector<Transfer> host_;
  std::vector<Transfer> device_;
  std::vector<std::uint64_t> lengths_;  // of device_, as the senders state them
  std::optional<Error> broken_;
  std::shared_ptr<Watch> watch_ = std::make_shared<Watch>();
};

}  // namespace tutti::kernels
