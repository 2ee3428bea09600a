// Owners of what the CUDA runtime hands out, and its errors as values.
//
// Threads: a stream is filled by one thread; events may be waited for by another.
// Errors: exhausted (memory, with the numbers), unsupported (no driver, a driver too old, no such
// device, no code for it: one line that says what to do), internal (a call that no device takes, or
// that a captured step cannot hold), unavailable (the device failed; every later call fails too).
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "protocol/base/result.h"

namespace tutti::kernels::cuda {

// `what` names the call: "cudaMalloc: out of memory".
Error error_of(cudaError_t code, std::string_view what);
inline Result<> check(cudaError_t code, std::string_view what) {
  if (code == cudaSuccess) return {};
  return error_of(code, what);
}

// Returns the error from the function that it stands in.
#define TUTTI_CUDA_CHECK(call)                                                             \
  do {                                                                                     \
    if (auto tutti_checked = ::tutti::kernels::cuda::check(call, #call); !tutti_checked) { \
      return std::move(tutti_checked).error();                                             \
    }                                                                                      \
  } while (false)

// Whether a device `index` can be used, said so that a person knows what to do otherwise.
Result<> use_device(int index);
// How many there are; an error says why none can be used.
Result<int> count_devices();

// "13.0" of 13000.
std::string version_text(int version);
// "GPU-" and the groups of digits that nvidia-smi shows and CUDA_VISIBLE_DEVICES takes.
std::string uuid_text(const cudaUUID_t& uuid);

// A handle that its destroyer ends.
template <class Handle, cudaError_t (*kDestroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle handle) : handle_(handle) {}
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != Handle{}) static_cast<void>(kDestroy(handle_));
  }
  Handle get() const { return handle_; }

 private:
  Handle handle_{};
};

using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
using Event = Owned<cudaEvent_t, cudaEventDestroy>;
using CapturedGraph = Owned<cudaGraph_t, cudaGraphDestroy>;
using Graph = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;
using DeviceMemory = Owned<void*, cudaFree>;
using PinnedMemory = Owned<void*, cudaFreeHost>;

Result<Stream> make_stream();
enum class Timing { off, on };
Result<Event> make_event(Timing timing = Timing::off);
Result<DeviceMemory> make_device_memory(std::size_t bytes);
Result<PinnedMemory> make_pinned_memory(std::size_t bytes);

}  // namespace tutti::kernels::cuda
