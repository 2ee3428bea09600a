#include "kernels/cuda/graphs/step_graphs.h"

#include <algorithm>
#include <cstring>

namespace tutti::kernels::cuda {

namespace {

constexpr std::size_t kAlignment = 256;

std::size_t round_up(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// A capture that met what it cannot hold is the program's mistake, not the device's end.
Error not_captured(cudaError_t code) {
  return {ErrorCode::internal,
          std::string("a step could not be captured: it allocates, waits or fails (") +
              cudaGetErrorString(code) + "); TUTTI_GPU_GRAPHS=0 runs it without graphs"};
}

}  // namespace

// Ends with its scope, also where the step throws.
struct StepGraphs::InMode {
  InMode(StepGraphs& graphs_in, Mode mode, WorkWatch* watch) : graphs(graphs_in) {
    graphs.mode_ = mode;
    work_watch = watch;
  }
  InMode(const InMode&) = delete;
  InMode& operator=(const InMode&) = delete;
  ~InMode() {
    graphs.mode_ = Mode::off;
    work_watch = nullptr;
  }
  StepGraphs& graphs;
};

Result<void*> StepGraphs::stage(const void* from, std::size_t bytes) {
  const auto* const data = static_cast<const std::byte*>(from);
  work_watch->hear(bytes);
  if (mode_ == Mode::muted) {
    data_.insert(data_.end(), data, data + bytes);
    data_.resize(round_up(data_.size()));
    return static_cast<void*>(data_.data());  // nothing that would read it is enqueued
  }
  void* const place = to_ + placed_;
  placed_ += round_up(bytes);
  if (placed_ > data_.size()) {
    return Error{ErrorCode::internal, "a step stages other data when it is captured"};
  }
  return place;
}

Result<> StepGraphs::run(cudaStream_t stream, std::uint64_t key, const Step& step) {
  WorkWatch watch{.muted = true};
  watch.hear(key);
  data_.clear();
  {
    const InMode muted(*this, Mode::muted, &watch);
    if (auto done = step(); !done) return done;
  }
  auto found = steps_.find(watch.signature);
  if (found == steps_.end()) {
    if (steps_.size() >= kGraphsMax) {
      TUTTI_CUDA_CHECK(cudaStreamSynchronize(stream));
      steps_.clear();
    }
    steps_.emplace(watch.signature, Known{});
    ++counts_.plain;
    return step();
  }
  Known& known = found->second;
  if (known.graph.get() != nullptr) {
    TUTTI_CUDA_CHECK(cudaEventSynchronize(known.launched.get()));
    std::memcpy(known.host.get(), data_.data(), data_.size());
    ++counts_.replayed;
    return launch(stream, known);
  }
  if (auto captured = capture(stream, {key, watch.signature}, known, step); !captured) {
    steps_.erase(found);
    return captured;
  }
  ++counts_.captured;
  return launch(stream, known);
}

Result<> StepGraphs::capture(cudaStream_t stream, const Wanted& wanted, Known& known,
                             const Step& step) {
  const std::size_t bytes = std::max<std::size_t>(data_.size(), 1);
  auto host = make_pinned_memory(bytes);
  if (!host) return std::move(host).error();
  known.host = *std::move(host);
  auto device = make_device_memory(bytes);
  if (!device) return std::move(device).error();
  known.device = *std::move(device);
  auto event = make_event();
  if (!event) return std::move(event).error();
  known.launched = *std::move(event);
  std::memcpy(known.host.get(), data_.data(), data_.size());
  to_ = static_cast<std::byte*>(known.device.get());
  placed_ = 0;
  TUTTI_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  Result<> stepped;
  cudaError_t ended = cudaSuccess;
  WorkWatch watch;
  watch.hear(wanted.key);
  {
    const InMode capturing(*this, Mode::capturing, &watch);
    const cudaError_t copied = cudaMemcpyAsync(known.device.get(), known.host.get(), bytes,
                                               cudaMemcpyHostToDevice, stream);
    if (copied == cudaSuccess) stepped = step();
    ended = cudaStreamEndCapture(stream, &graph);
    if (ended == cudaSuccess) ended = copied;
  }
  static_cast<void>(cudaGetLastError());
  if (ended == cudaSuccess && stepped && watch.signature != wanted.signature) {
    stepped = Error{ErrorCode::internal, "a step does other work when it is captured"};
  }
  if (ended != cudaSuccess || !stepped) {
    if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
    if (ended != cudaSuccess) return not_captured(ended);
    return stepped;
  }
  cudaGraphExec_t exec = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&exec, graph, 0);
  static_cast<void>(cudaGraphDestroy(graph));
  TUTTI_CUDA_CHECK(made);
  known.graph = Graph(exec);
  return {};
}

Result<> StepGraphs::launch(cudaStream_t stream, Known& known) {
  TUTTI_CUDA_CHECK(cudaGraphLaunch(known.graph.get(), stream));
  TUTTI_CUDA_CHECK(cudaEventRecord(known.launched.get(), stream));
  return {};
}

}  // namespace tutti::kernels::cuda
