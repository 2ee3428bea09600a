#include "kernels/collective/nccl_group.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <thread>

#include "protocol/base/log.h"

namespace tutti::kernels {

namespace {

constexpr char kVersionMark = '-';
constexpr std::size_t kIdBytes = sizeof(ncclUniqueId::internal);
// A look costs a few calls; a transfer takes from tens of microseconds on.
constexpr Duration kBetweenLooks = std::chrono::microseconds(20);
constexpr Duration kBetweenLooksAtEnd = std::chrono::milliseconds(1);
constexpr int kExitInfrastructure = 3;

Error nccl_error(ncclResult_t result, std::string_view what) {
  return {ErrorCode::unavailable, fmt::format("{}: {}", what, ncclGetErrorString(result))};
}

// An address that the device knows nothing of is the host's; all other errors are the device's end.
Result<bool> is_device_memory(const std::span<std::byte>& bytes) {
  cudaPointerAttributes attributes = {};
  const cudaError_t asked = cudaPointerGetAttributes(&attributes, bytes.data());
  if (asked == cudaSuccess) return attributes.type == cudaMemoryTypeDevice;
  static_cast<void>(cudaGetLastError());  // where it may stay, for an op to find
  if (asked == cudaErrorInvalidValue) return false;
  return cuda::error_of(asked, "cudaPointerGetAttributes");
}

// The version behind the digits is that of whoever made the identifier: the library promises
// nothing for groups of several.
Result<> compare_version(std::string_view text) {
  const std::string own = nccl_version();
  const std::string_view other = text.substr(std::min(text.size(), 2 * kIdBytes + 1));
  if (other == own) return {};
  return Error{
      ErrorCode::unsupported,
      fmt::format("rank 0 has NCCL {}, this rank {}: a group needs one version, so install one on "
                  "the machines of its workers (`tutti node` says theirs)",
                  other, own)};
}

Result<ncclUniqueId> parse_id(std::string_view text) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1);
  };
  ncclUniqueId id = {};
  bool right = text.size() > 2 * kIdBytes && text[2 * kIdBytes] == kVersionMark;
  for (std::size_t i = 0; right && i < kIdBytes; ++i) {
    const int high = digit(text[2 * i]);
    const int low = digit(text[2 * i + 1]);
    right = high >= 0 && low >= 0;
    id.internal[i] = static_cast<char>(16 * high + low);
  }
  if (!right) {
    return Error{ErrorCode::invalid_argument,
                 "an NCCL identifier has 256 hexadecimal digits and a version"};
  }
  if (auto same = compare_version(text); !same) return same.error();
  return id;
}

}  // namespace

Result<std::string> make_nccl_id() {
  ncclUniqueId id = {};
  if (const ncclResult_t result = ncclGetUniqueId(&id); result != ncclSuccess) {
    return nccl_error(result, "ncclGetUniqueId");
  }
  std::string text;
  for (const char byte : id.internal)
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text + kVersionMark + nccl_version();
}

std::string nccl_version() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return "of no version";
  return fmt::format("{}.{}.{}", version / 10'000, version / 100 % 100, version % 100);
}

Result<std::unique_ptr<Communicator>> NcclGroup::over(std::unique_ptr<Communicator> control,
                                                      const NcclOptions& options) {
  std::unique_ptr<NcclGroup> group(new NcclGroup(std::move(control), options));
  auto id = parse_id(options.id);
  if (!id) return std::move(id).error();
  group->id_ = *id;
  TUTTI_CUDA_CHECK(cudaGetDevice(&group->own_device_));
  group->stream_ = options.transfers;
  if (group->stream_ == nullptr) {
    auto stream = cuda::make_stream();
    if (!stream) return std::move(stream).error();
    group->own_stream_ = *std::move(stream);
    group->stream_ = group->own_stream_.get();
  }
  auto event = cuda::make_event();
  if (!event) return std::move(event).error();
  group->written_ = *std::move(event);
  return std::unique_ptr<Communicator>(std::move(group));
}

NcclGroup::~NcclGroup() {
  const bool stands = !broken_ && control_->look();
  // Peers of a broken group do not wait for this rank's device.
  if (!stands) control_.reset();
  end_communicator(stands);
}

Result<> NcclGroup::exchange(std::span<const Transfer> transfers) {
  if (auto begun = begin(transfers); !begun) return begun;
  return device_.empty() ? Result<>() : finish();
}

Result<> NcclGroup::begin(std::span<const Transfer> transfers) {
  if (broken_) return *broken_;
  host_.clear();
  device_.clear();
  for (const Transfer& transfer : transfers) {
    if (transfer.bytes.empty()) continue;
    const auto on_device = is_device_memory(transfer.bytes);
    if (!on_device) return break_off(on_device.error());
    (*on_device ? device_ : host_).push_back(transfer);
  }
  announce();
  // Also when there is nothing for it: groups are numbered there.
  auto exchanged = control_->exchange(host_);
  if (exchanged) exchanged = compare_lengths();
  const bool moves = size() > 1 || !device_.empty();
  if (exchanged && comm_ == nullptr && moves) exchanged = form();
  if (!device_.empty()) set_moves(true);
  if (exchanged) exchanged = begin_on_device();
  if (!exchanged) return break_off(exchanged.error());
  return {};
}

void NcclGroup::set_moves(bool moves) {
  const std::lock_guard lock(watch_->mutex);
  watch_->moves = moves;
  watch_->changed.notify_all();
}

void NcclGroup::abort(std::string_view reason) noexcept {
  control_->abort(reason);
  const std::lock_guard lock(watch_->mutex);
  if (!watch_->moves || std::exchange(watch_->watched, true)) return;
  std::thread([watch = watch_, within = options_.seen_deadline] {
    std::unique_lock watching(watch->mutex);
    if (watch->changed.wait_for(watching, within, [&] { return !watch->moves; })) return;
    TUTTI_LOG_ERROR("collective", "a call waits for the device and sees no abort: the rank ends");
    std::_Exit(kExitInfrastructure);
  }).detach();
}

Result<> NcclGroup::finish() {
  if (broken_) return *broken_;
  if (auto finished = wait_for_stream(stream_, "a transfer"); !finished) {
    return break_off(finished.error());
  }
  set_moves(false);
  return {};
}

Result<> NcclGroup::wait_for_device() {
  if (broken_) return *broken_;
  auto computed = wait_for_stream(options_.compute, "what the device computes");
  if (!computed) return break_off(computed.error());
  return {};
}

// Before the library moves anything, both ends of each transfer show its length over the sockets:
// it would hang on lengths that differ, and on a peer that is not coming.
void NcclGroup::announce() {
  lengths_.assign(device_.size(), 0);
  for (std::size_t i = 0; i < device_.size(); ++i) {
    const Transfer& transfer = device_[i];
    if (transfer.direction == Transfer::Direction::send) lengths_[i] = transfer.bytes.size();
    host_.push_back(
        {transfer.direction, transfer.peer, std::as_writable_bytes(std::span(&lengths_[i], 1))});
  }
}

Result<> NcclGroup::compare_lengths() const {
  for (std::size_t i = 0; i < device_.size(); ++i) {
    if (lengths_[i] == device_[i].bytes.size()) continue;
    return Error{ErrorCode::corrupt,
                 fmt::format("rank {} sends {} bytes of device memory, but {} are due",
                             device_[i].peer, lengths_[i], device_[i].bytes.size())};
  }
  return {};
}

// Also without a transfer, the stream goes on behind what was computed: sums may follow there. The
// library takes one group at a time; that its transfers are done is not waited for.
Result<> NcclGroup::begin_on_device() {
  TUTTI_CUDA_CHECK(cudaEventRecord(written_.get(), options_.compute));
  TUTTI_CUDA_CHECK(cudaStreamWaitEvent(stream_, written_.get(), 0));
  if (device_.empty()) return {};
  if (auto started = start_transfers(); !started) return started;
  return wait_for_library("an NCCL group", options_.operation_deadline);
}

Result<> NcclGroup::form() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result = ncclCommInitRankConfig(&comm_, static_cast<int>(size()), id_,
                                                     static_cast<int>(rank()), &config);
  if (result != ncclSuccess && result != ncclInProgress) {
    return nccl_error(result, "ncclCommInitRankConfig");
  }
  return wait_for_library("forming the NCCL group", options_.form_deadline);
}

Result<> NcclGroup::start_transfers() {
  const auto taken = [](ncclResult_t result) {
    return result == ncclSuccess || result == ncclInProgress;
  };
  ncclResult_t result = ncclGroupStart();
  for (const Transfer& transfer : device_) {
    if (!taken(result)) break;
    const auto peer = static_cast<int>(transfer.peer);
    const std::size_t bytes = transfer.bytes.size();
    result = transfer.direction == Transfer::Direction::send
                 ? ncclSend(transfer.bytes.data(), bytes, ncclInt8, peer, comm_, stream_)
                 : ncclRecv(transfer.bytes.data(), bytes, ncclInt8, peer, comm_, stream_);
  }
  const ncclResult_t ended = ncclGroupEnd();
  if (!taken(result)) return nccl_error(result, "ncclSend or ncclRecv");
  if (!taken(ended)) return nccl_error(ended, "ncclGroupEnd");
  return {};
}

Result<> NcclGroup::look() {
  if (broken_) return *broken_;
  if (auto stands = look_at_all("the NCCL group"); !stands) return break_off(stands.error());
  return {};
}

Result<> NcclGroup::look_at_all(std::string_view what) {
  // An abort, and a peer that is gone: the library may see neither.
  if (auto stands = control_->look(); !stands) return stands;
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = comm_ == nullptr ? ncclSuccess : ncclCommGetAsyncError(comm_, &state);
  if (asked != ncclSuccess) return nccl_error(asked, "ncclCommGetAsyncError");
  if (state != ncclSuccess && state != ncclInProgress) return nccl_error(state, what);
  return {};
}

namespace {

Result<> is_in_time(std::string_view what, Instant begun, Duration deadline) {
  if (deadline == Duration::zero() || monotonic_now() - begun <= deadline) return {};
  return Error{ErrorCode::deadline_exceeded, fmt::format("{} did not end in its time", what)};
}

}  // namespace

Result<> NcclGroup::wait_for_library(std::string_view what, Duration deadline) {
  const Instant begun = monotonic_now();
  for (;;) {
    if (auto stands = look_at_all(what); !stands) return stands;
    if (auto early = is_in_time(what, begun, deadline); !early) return early;
    ncclResult_t state = ncclSuccess;
    static_cast<void>(ncclCommGetAsyncError(comm_, &state));
    if (state == ncclSuccess) return {};
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

Result<> NcclGroup::wait_for_stream(cudaStream_t stream, std::string_view what) {
  const Instant begun = monotonic_now();
  for (;;) {
    const cudaError_t state = cudaStreamQuery(stream);
    if (state == cudaSuccess) return {};
    if (state != cudaErrorNotReady) return cuda::error_of(state, what);
    static_cast<void>(cudaGetLastError());  // where it may stay, for an op to find
    if (auto stands = look_at_all("the NCCL group"); !stands) return stands;
    if (auto early = is_in_time(what, begun, options_.operation_deadline); !early) return early;
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

// The first reason is kept. What was begun may go on until the group ends.
Error NcclGroup::break_off(Error error) {
  broken_ = error;
  control_->abort(error.message);
  return error;
}

namespace {

// Whether all ranks came to the end in time, and nothing of the group moves any more.
bool finalize(ncclComm_t comm, Duration deadline) {
  const ncclResult_t begun = ncclCommFinalize(comm);
  if (begun != ncclSuccess && begun != ncclInProgress) return false;
  // Who is ahead has closed its sockets by then: they say nothing any more.
  const Instant until = monotonic_now() + deadline;
  for (;;) {
    ncclResult_t state = ncclInProgress;
    if (ncclCommGetAsyncError(comm, &state) != ncclSuccess) return false;
    if (state == ncclSuccess) return true;
    if (state != ncclInProgress || monotonic_now() > until) return false;
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

}  // namespace

// Whether what the transfers are queued behind is still being computed; not, where the device has
// failed.
bool NcclGroup::computes() const {
  const bool waits = cudaEventQuery(written_.get()) == cudaErrorNotReady;
  static_cast<void>(cudaGetLastError());  // where it may stay, for an op to find
  return waits;
}

// Every call of the library that ends something is made by a thread that is watched: each of them
// may hang with the device. Nobody else is inside the library meanwhile.
void NcclGroup::end_communicator(bool stands) {
  set_moves(false);  // the thread is here, and watched otherwise
  if (comm_ == nullptr) {
    if (stream_ != nullptr) static_cast<void>(cudaStreamSynchronize(stream_));
    return;
  }
  std::packaged_task<void()> task([stands, comm = comm_, stream = stream_,
                                   deadline = options_.finalize_deadline, device = own_device_] {
    // A new thread's is the first, whose memory a context would take.
    static_cast<void>(cudaSetDevice(device));
    const bool finalized = stands && finalize(comm, deadline);
    static_cast<void>(finalized ? ncclCommDestroy(comm) : ncclCommAbort(comm));
    static_cast<void>(cudaStreamSynchronize(stream));
  });
  comm_ = nullptr;
  auto done = task.get_future();
  std::thread ending(std::move(task));
  const Duration within =
      options_.abort_deadline + (stands ? options_.finalize_deadline : Duration::zero());
  Instant since = monotonic_now();
  const Instant computed_by = since + options_.compute_deadline;
  while (done.wait_for(kBetweenLooksAtEnd) != std::future_status::ready) {
    const Instant now = monotonic_now();
    if (now < computed_by && computes()) since = now;
    if (now - since <= within) continue;
    TUTTI_LOG_ERROR("collective", "the end of an NCCL group hangs: the rank ends");
    std::_Exit(kExitInfrastructure);
  }
  ending.join();
}

}  // namespace tutti::kernels
