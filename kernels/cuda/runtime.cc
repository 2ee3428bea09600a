#include "kernels/cuda/runtime.h"

#include <fmt/core.h>

namespace tutti::kernels::cuda {

namespace {

constexpr int kVersionNeeded = CUDART_VERSION;

}  // namespace

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string uuid_text(const cudaUUID_t& uuid) {
  std::string out = "GPU";
  for (std::size_t i = 0; i < sizeof(uuid.bytes); ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return out;
}

Error error_of(cudaError_t code, std::string_view what) {
  const std::string text =
      fmt::format("{}: {} ({})", what, cudaGetErrorString(code), cudaGetErrorName(code));
  // A capture that met what it cannot hold is the program's mistake, not the device's end.
  if (code >= cudaErrorStreamCaptureUnsupported && code <= cudaErrorStreamCaptureWrongThread) {
    return {ErrorCode::internal, "a step could not be captured: it allocates, waits or fails (" +
                                     text + "); TUTTI_GPU_GRAPHS=0 runs it without graphs"};
  }
  switch (code) {
    case cudaErrorMemoryAllocation: return {ErrorCode::exhausted, text};
    // What a call was given, by us.
    case cudaSuccess:
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidDevicePointer:
    case cudaErrorInvalidMemcpyDirection:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorLaunchOutOfResources: return {ErrorCode::internal, text};
    // Never works on this machine with this build, so nobody is to try again.
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return {ErrorCode::unsupported,
              "this build has no code for this GPU: build it with TUTTI_CUDA_ARCHITECTURES naming "
              "the GPU's, or run with device: cpu (" +
                  text + ")"};
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
      return {ErrorCode::unsupported,
              "the NVIDIA driver cannot translate this build's code for this GPU: update the "
              "driver, or build with TUTTI_CUDA_ARCHITECTURES naming the GPU's (" +
                  text + ")"};
    case cudaErrorSystemDriverMismatch:
      return {ErrorCode::unsupported,
              "the NVIDIA driver and its libraries are of different versions: restart the machine "
              "(" +
                  text + ")"};
    case cudaErrorSystemNotReady:
      return {ErrorCode::unsupported,
              "the GPUs' links are not set up: start the fabric manager of the driver's version "
              "(`systemctl start nvidia-fabricmanager`), which machines with NVSwitch need (" +
                  text + ")"};
    // That may be over with the other process.
    case cudaErrorDevicesUnavailable:
      return {ErrorCode::unavailable,
              "another process has the GPU for itself: end it (`nvidia-smi` names it), or let "
              "processes share GPUs by `nvidia-smi -c DEFAULT` (" +
                  text + ")"};
    case cudaErrorNotSupported:
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver: return {ErrorCode::unsupported, text};
    default: return {ErrorCode::unavailable, "the GPU failed: " + text};
  }
}

Result<int> count_devices() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  static_cast<void>(cudaGetLastError());
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  if (driver == 0) {
    return Error{ErrorCode::unsupported,
                 "no NVIDIA driver is loaded: install one, or run with device: cpu"};
  }
  if (driver / 1000 < kVersionNeeded / 1000 || code == cudaErrorInsufficientDriver) {
    return Error{ErrorCode::unsupported,
                 fmt::format("the NVIDIA driver knows CUDA {}, this build needs {}: update the "
                             "driver, or run with device: cpu",
                             version_text(driver), version_text(kVersionNeeded))};
  }
  if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0)) {
    return Error{ErrorCode::unsupported,
                 "no GPU is visible: check CUDA_VISIBLE_DEVICES and "
                 "nvidia-smi, or run with device: cpu"};
  }
  if (code != cudaSuccess) return error_of(code, "cudaGetDeviceCount");
  return count;
}

Result<> use_device(int index) {
  auto count = count_devices();
  if (!count) return std::move(count).error();
  if (index < 0 || index >= *count) {
    return Error{ErrorCode::unsupported,
                 fmt::format("GPU {} was asked for; this process sees {}", index, *count)};
  }
  return check(cudaSetDevice(index), "cudaSetDevice");
}

Result<Stream> make_stream() {
  cudaStream_t stream = nullptr;
  TUTTI_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

Result<Event> make_event(Timing timing) {
  cudaEvent_t event = nullptr;
  TUTTI_CUDA_CHECK(
      cudaEventCreateWithFlags(&event, timing == Timing::on ? 0 : cudaEventDisableTiming));
  return Event(event);
}

Result<DeviceMemory> make_device_memory(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t code = cudaMalloc(&memory, bytes);
  if (code == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    std::size_t free = 0;
    std::size_t total = 0;
    static_cast<void>(cudaMemGetInfo(&free, &total));
    return Error{ErrorCode::exhausted,
                 fmt::format("the GPU has no {} MB left ({} of {} MB are free): take a smaller "
                             "micro-batch, more ranks, or a larger GPU",
                             bytes >> 20, free >> 20, total >> 20)};
  }
  TUTTI_CUDA_CHECK(code);
  return DeviceMemory(memory);
}

Result<PinnedMemory> make_pinned_memory(std::size_t bytes) {
  void* memory = nullptr;
  TUTTI_CUDA_CHECK(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault));
  return PinnedMemory(memory);
}

}  // namespace tutti::kernels::cuda
