// The emulated device behind the runtime's calls: memory with margins, streams, events, graphs.
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/cuda_emulation/asked_in_vain.h"
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/cuda_emulation/grid_counts.h"
#include "tests/support/cuda_emulation/injected_fault.h"
#include "tests/support/poison.h"

namespace {

using tutti::emulation::MemoryKind, tutti::emulation::MemoryUse, tutti::emulation::OwnWork;

using Work = std::function<std::string()>;

constexpr int kVersion = 13000;

struct Device {
  // What is allocated under it may come here again: tests have this memory behind operator new.
  std::recursive_mutex mutex;
  bool shared = false;                                // another process has taken its part
  std::map<const void*, std::size_t> dynamic_shared;  // that kernels have asked for, bytes
  std::string fault;
};

// Of this thread, until it asks.
thread_local cudaError_t last_error = cudaSuccess;

// Never destroyed: stream threads may outlive static objects.
Device& device() {
  static auto* const one = new Device;
  return *one;
}

std::size_t number_from(const char* variable, std::size_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// That a block may have if its kernel asks; TUTTI_EMULATION_SHARED: of another device.
std::size_t shared_bytes_max() {
  return std::min(number_from("TUTTI_EMULATION_SHARED", tutti::emulation::kSharedBytesMax),
                  tutti::emulation::kSharedBytesMax);
}

cudaError_t failed(cudaError_t error) {
  last_error = error;
  return error;
}

void note_fault(const std::string& fault) {
  const std::lock_guard lock(device().mutex);
  if (device().fault.empty()) {
    device().fault = fault;
    std::fprintf(stderr, "emulation: %s\n", fault.c_str());
  }
}

// Sticky, as on a real device: after a fault every call fails.
cudaError_t sticky() {
  const std::lock_guard lock(device().mutex);
  return device().fault.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t allocate(void** memory, std::size_t bytes, MemoryKind kind) {
  *memory = tutti::emulation::take_memory(bytes, kind);
  return *memory == nullptr ? failed(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t release(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  if (const std::string broken = tutti::emulation::broken_margin(); !broken.empty())
    note_fault(broken);
  return tutti::emulation::give_memory_back(memory) ? cudaSuccess : failed(cudaErrorInvalidValue);
}

}  // namespace

struct EmulatedGraph {
  std::vector<Work> work;
  bool invalid = false;  // something was called that a capture cannot hold
};

struct EmulatedEvent {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t asked = 0;  // records enqueued
  bool captured = false;    // the last of them into a graph
  std::uint64_t done = 0;
  std::chrono::steady_clock::time_point at;
};

struct EmulatedStream {
  EmulatedStream() : thread([this] { serve(); }) {}
  ~EmulatedStream() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_all();
    thread.join();
  }

  void add(Work work) {
    {
      const std::lock_guard lock(mutex);
      if (capturing) {
        capturing->work.push_back(std::move(work));
        return;
      }
      queue.push_back(std::move(work));
    }
    changed.notify_all();
  }
  void wait_idle() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return queue.empty() && !busy; });
  }

  void serve() {
    std::unique_lock lock(mutex);
    std::optional<MemoryUse> use;  // from the first work until there is none
    for (;;) {
      changed.wait(lock, [this] { return stop || !queue.empty(); });
      if (queue.empty()) return;
      const Work work = std::move(queue.front());
      queue.pop_front();
      busy = true;
      lock.unlock();
      if (!use) use.emplace();
      if (sticky() == cudaSuccess) {
        if (const std::string fault = work(); !fault.empty()) note_fault(fault);
      }
      lock.lock();
      if (queue.empty()) use.reset();
      busy = false;
      changed.notify_all();
    }
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;
  bool busy = false;
  bool stop = false;
  std::unique_ptr<EmulatedGraph> capturing;
  std::thread thread;
};

namespace {

// The stream that this thread captures.
thread_local EmulatedStream* captured_here = nullptr;

// Allocating and waiting are errors while the thread captures, and the capture is lost with them.
bool breaks_capture(EmulatedStream* stream = captured_here) {
  if (stream == nullptr) return false;
  const std::lock_guard lock(stream->mutex);
  if (!stream->capturing) return false;
  stream->capturing->invalid = true;
  return true;
}

}  // namespace

namespace tutti::emulation {

namespace {

// Of compute capability 9.0.
cudaError_t check_shape(const GridShape& shape) {
  constexpr unsigned kBlocksXMax = 0x7fffffff;
  constexpr unsigned kBlocksYzMax = 65'535;
  constexpr unsigned kThreadsZMax = 64;
  const Extent& blocks = shape.blocks;
  const Extent& threads = shape.threads;
  const bool taken = blocks.count() > 0 && blocks.x <= kBlocksXMax && blocks.y <= kBlocksYzMax &&
                     blocks.z <= kBlocksYzMax && threads.count() > 0 &&
                     threads.count() <= kThreadsMax && threads.z <= kThreadsZMax;
  return taken ? cudaSuccess : cudaErrorInvalidConfiguration;
}

// Dynamic shared memory that the kernel has asked for; 0: none.
std::size_t shared_room_of(const void* kernel) {
  const std::lock_guard lock(device().mutex);
  const auto found = device().dynamic_shared.find(kernel);
  return found == device().dynamic_shared.end() ? 0 : found->second;
}

}  // namespace

void enqueue(cudaStream_t stream, std::function<std::string()> work) {
  stream->add(std::move(work));
}

cudaError_t enqueue_grid(cudaStream_t stream, const GridLaunch& launch,
                         std::function<void()> thread_body) {
  GridShape shape = launch.shape;
  shape.shared_room = shared_room_of(launch.kernel);
  const std::size_t room = shape.shared_room == 0 ? kSharedBytesPlain : shape.shared_room;
  cudaError_t refused = check_shape(shape);
  if (refused == cudaSuccess && shape.shared_bytes > room) refused = cudaErrorInvalidValue;
  if (refused != cudaSuccess) {
    std::fprintf(stderr, "emulation: %s: a device takes no such launch\n", launch.name);
    return failed(refused);
  }
  count_grid(launch.name);
  // On a device it may meet the address or not; here it is a fault in any case.
  if (std::ranges::any_of(launch.words, is_foreign_address)) {
    stream->add([name = launch.name]() -> std::string {
      return std::string(name) + ": it was handed an address that is none of the device's memory";
    });
    return cudaSuccess;
  }
  stream->add([shape, body = std::move(thread_body), name = launch.name]() -> std::string {
    std::string fault = injected_fault(name);
    if (fault.empty()) fault = run_grid(shape, body);
    if (fault.empty()) fault = broken_margin();
    return fault.empty() ? fault : std::string(name) + ": " + fault;
  });
  return cudaSuccess;
}

std::string device_fault() {
  const std::lock_guard lock(device().mutex);
  return device().fault;
}

void clear_fault() {
  const std::lock_guard lock(device().mutex);
  device().fault.clear();
  last_error = cudaSuccess;
  mend_margins();
}

}  // namespace tutti::emulation

namespace {

// Numbers of the devices that CUDA_VISIBLE_DEVICES leaves, which names them by UUID.
std::vector<int> visible_devices() {
  const char* const named = std::getenv("CUDA_VISIBLE_DEVICES");
  std::vector<int> out;
  const auto all = static_cast<int>(number_from("TUTTI_EMULATION_DEVICES", 8));
  for (int device = 0; device < all; ++device) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", '0' + device % 10);
    const std::string uuid = "GPU-656d756c-6174-6564-2d" + std::string(digits) + "-000000000000";
    if (named == nullptr || std::strstr(named, uuid.c_str()) != nullptr) out.push_back(device);
  }
  return out;
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  const std::size_t asked = visible_devices().size();
  if (number_from("TUTTI_EMULATION_DRIVER", kVersion) < kVersion) {
    return failed(cudaErrorInsufficientDriver);
  }
  if (asked == 0) return failed(cudaErrorNoDevice);
  // As on a machine whose driver is not well; the error's number.
  const std::size_t error = number_from("TUTTI_EMULATION_COUNT_FAILS", cudaSuccess);
  if (error != cudaSuccess) return failed(static_cast<cudaError_t>(error));
  *count = static_cast<int>(asked);
  return cudaSuccess;
}

namespace {
thread_local int current_device = 0;  // the first one's, until a thread says otherwise
}  // namespace

cudaError_t cudaSetDevice(int index) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) return error;
  if (index >= count) return failed(cudaErrorInvalidDevice);
  current_device = index;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* index) {
  *index = current_device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  *properties = {};
  // TUTTI_EMULATION_NAME, TUTTI_EMULATION_CAPABILITY (90 is 9.0): as if it were another card.
  const char* const name = std::getenv("TUTTI_EMULATION_NAME");
  std::snprintf(properties->name, sizeof(properties->name), "%s", name ? name : "emulation");
  const int device_number = visible_devices().at(static_cast<std::size_t>(index));
  std::snprintf(properties->uuid.bytes, sizeof(properties->uuid.bytes), "emulated-%d",
                device_number % 10);
  properties->totalGlobalMem = tutti::emulation::memory_total();
  properties->sharedMemPerBlockOptin = shared_bytes_max();
  properties->multiProcessorCount = 4;
  properties->major = static_cast<int>(number_from("TUTTI_EMULATION_CAPABILITY", 90) / 10);
  properties->minor = static_cast<int>(number_from("TUTTI_EMULATION_CAPABILITY", 90) % 10);
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = static_cast<int>(number_from("TUTTI_EMULATION_DRIVER", kVersion));
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

// TUTTI_EMULATION_CODE_FAILS: as if this build had no code for the device; the error's number.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  const std::size_t error = number_from("TUTTI_EMULATION_CODE_FAILS", cudaSuccess);
  return error == cudaSuccess ? cudaSuccess : failed(static_cast<cudaError_t>(error));
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  const auto bytes = static_cast<std::size_t>(value);
  if (value < 0 || bytes > shared_bytes_max()) return failed(cudaErrorInvalidValue);
  const std::lock_guard lock(device().mutex);
  device().dynamic_shared[kernel] = bytes;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t error = sticky(); error != cudaSuccess) return failed(error);
  return allocate(memory, bytes, MemoryKind::device);
}
cudaError_t cudaFree(void* memory) {
  if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
  return release(memory);
}
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
  return allocate(memory, bytes, MemoryKind::pinned);
}
cudaError_t cudaFreeHost(void* memory) { return release(memory); }
// TUTTI_EMULATION_REGISTER=0: as in a sandbox that does not let it.
cudaError_t cudaHostRegister(void* memory, std::size_t bytes, unsigned) {
  if (number_from("TUTTI_EMULATION_REGISTER", 1) == 0) return failed(cudaErrorNotSupported);
  if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
  const bool is_new = tutti::emulation::register_memory(memory, bytes);
  return is_new ? cudaSuccess : failed(cudaErrorInvalidValue);
}
cudaError_t cudaHostUnregister(void* memory) {
  const bool was = tutti::emulation::unregister_memory(memory);
  return was ? cudaSuccess : failed(cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  if (const cudaError_t error = sticky(); error != cudaSuccess) return failed(error);
  const std::lock_guard lock(device().mutex);
  *total = tutti::emulation::memory_total();
  *free = *total - std::min(*total, tutti::emulation::memory_used());
  // Once this process knows what is free, another one takes it.
  if (!std::exchange(device().shared, true)) {
    tutti::emulation::note_memory_used(number_from("TUTTI_EMULATION_TAKEN_LATER", 0));
  }
  return cudaSuccess;
}

namespace {

using tutti::emulation::kind_of;

std::atomic<std::uint64_t> bytes_up{0};
std::atomic<std::uint64_t> bytes_down{0};

bool on_device(const void* memory, std::size_t bytes) {
  return kind_of(memory, bytes) == MemoryKind::device;
}
// Its own memory, and the host's that it was told of.
bool seen_by_device(const void* memory, std::size_t bytes) {
  return kind_of(memory, bytes) != MemoryKind::none;
}
bool on_host(const void* memory) { return !on_device(memory, 1); }

// Whether the ends lie where the kind of the copy says.
bool lie_right(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost: return on_host(to) && on_host(from);
    case cudaMemcpyHostToDevice: return on_device(to, bytes) && on_host(from);
    case cudaMemcpyDeviceToHost: return on_host(to) && on_device(from, bytes);
    case cudaMemcpyDeviceToDevice: return on_device(to, bytes) && on_device(from, bytes);
    case cudaMemcpyDefault: return true;
  }
  return false;
}

}  // namespace

tutti::emulation::CopiedBytes tutti::emulation::copied_bytes() { return {bytes_up, bytes_down}; }

// The source is read when the stream comes to it, also from pageable memory: the strictest that
// CUDA allows.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const OwnWork own;
  if (bytes > 0 && !lie_right(to, from, bytes, kind)) return failed(cudaErrorInvalidValue);
  if (kind == cudaMemcpyHostToDevice) bytes_up += bytes;
  if (kind == cudaMemcpyDeviceToHost) bytes_down += bytes;
  stream->add([to, from, bytes]() -> std::string {
    std::memmove(to, from, bytes);
    return {};
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  const OwnWork own;
  if (bytes > 0 && !seen_by_device(to, bytes)) return failed(cudaErrorInvalidValue);
  stream->add([to, value, bytes]() -> std::string {
    std::memset(to, value, bytes);
    return {};
  });
  return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void** seen, void* memory, unsigned) {
  *seen = memory;
  return seen_by_device(memory, 1) ? cudaSuccess : failed(cudaErrorInvalidValue);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  if (const cudaError_t error = sticky(); error != cudaSuccess) return failed(error);
  const MemoryKind kind = kind_of(memory, 1);
  const bool is_host = kind == MemoryKind::pinned || kind == MemoryKind::registered;
  *attributes = {is_host                      ? cudaMemoryTypeHost
                 : kind == MemoryKind::device ? cudaMemoryTypeDevice
                                              : cudaMemoryTypeUnregistered,
                 0};
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new EmulatedStream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (breaks_capture(stream)) return failed(cudaErrorStreamCaptureUnsupported);
  stream->wait_idle();
  const cudaError_t error = sticky();
  return error == cudaSuccess ? error : failed(error);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (breaks_capture(stream)) return failed(cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t error = sticky(); error != cudaSuccess) return error;
  const std::lock_guard lock(stream->mutex);
  if (stream->queue.empty() && !stream->busy) return sticky();
  tutti::emulation::asked_in_vain = stream;
  return failed(cudaErrorNotReady);  // no error, but left for who asks for the last one
}

// TUTTI_EMULATION_EVENT_WAITS=0: as if the program had none.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const OwnWork own;
  if (number_from("TUTTI_EMULATION_EVENT_WAITS", 1) == 0) return cudaSuccess;
  std::uint64_t record = 0;
  {
    const std::lock_guard lock(event->mutex);
    record = event->asked;
  }
  stream->add([event, record]() -> std::string {
    std::unique_lock lock(event->mutex);
    // A fault drops the work that the event stands behind.
    while (event->done < record && sticky() == cudaSuccess) {
      event->changed.wait_for(lock, std::chrono::milliseconds(10));
    }
    return {};
  });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}
// A record of it may still be in a stream: it stays until the process ends.
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  tutti::test::is_no_leak(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const OwnWork own;
  std::uint64_t record = 0;
  {
    const std::lock_guard lock(event->mutex);
    event->captured = stream == captured_here;
    record = ++event->asked;
  }
  stream->add([event, record]() -> std::string {
    const std::lock_guard lock(event->mutex);
    event->done = record;
    event->at = std::chrono::steady_clock::now();
    event->changed.notify_all();
    return {};
  });
  return cudaSuccess;
}
// TUTTI_EMULATION_HOST_WAITS=0: as if the program did not wait for it.
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (number_from("TUTTI_EMULATION_HOST_WAITS", 1) == 0) return cudaSuccess;
  if (event->captured && breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
  // After a fault the stream drops its work, this event's record with it.
  std::unique_lock lock(event->mutex);
  const std::uint64_t record = event->asked;
  while (event->done < record && sticky() == cudaSuccess) {
    event->changed.wait_for(lock, std::chrono::milliseconds(10));
  }
  const cudaError_t error = sticky();
  return error == cudaSuccess ? error : failed(error);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->captured && breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
  const std::lock_guard lock(event->mutex);
  if (event->done < event->asked && sticky() == cudaSuccess) return failed(cudaErrorNotReady);
  return sticky();
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
  return sticky();
}
cudaError_t cudaGetLastError() {
  if (const cudaError_t error = sticky(); error != cudaSuccess) return error;
  return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() {
  if (const cudaError_t error = sticky(); error != cudaSuccess) return error;
  return last_error;
}

const char* cudaGetErrorString(cudaError_t error) {
  static thread_local std::string text;
  text =
      error == cudaErrorLaunchFailure ? tutti::emulation::device_fault() : cudaGetErrorName(error);
  text = "emulation: " + text;
  return text.c_str();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard lock(stream->mutex);
  if (captured_here != nullptr || stream->capturing) return failed(cudaErrorInvalidValue);
  stream->capturing = std::make_unique<EmulatedGraph>();
  captured_here = stream;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(stream->mutex);
  *graph = nullptr;
  if (!stream->capturing) return failed(cudaErrorInvalidValue);
  captured_here = nullptr;
  const std::unique_ptr<EmulatedGraph> captured = std::move(stream->capturing);
  if (captured->invalid) return failed(cudaErrorStreamCaptureInvalidated);
  *graph = new EmulatedGraph(*captured);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new EmulatedGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const OwnWork own;
  for (const Work& work : exec->work) stream->add(work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
