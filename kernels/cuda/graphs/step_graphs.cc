#include "kernels/cuda/graphs/step_graphs.h"

#include <algorithm>
#include <cstring>

namespace tutti::kernels::cuda {

namespace {

constexpr std::size_t kAlignment = 256;

std::size_t round_up(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// What a stream is given from begin() on, as a graph. A capture that was begun is ended with its
// scope, whatever the step met: until then the stream would run nothing.
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {}
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() {
    if (begun_) static_cast<void>(end());
    static_cast<void>(cudaGetLastError());  // said by the step
  }

  Result<> begin() {
    TUTTI_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    begun_ = true;
    return {};
  }
  Result<CapturedGraph> end() {
    begun_ = false;
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
    CapturedGraph captured(graph);
    TUTTI_CUDA_CHECK(ended);
    return captured;
  }

 private:
  cudaStream_t stream_;
  bool begun_ = false;
};

}  // namespace

struct StepGraphs::Known {
  PinnedMemory host;  // as the data goes up
  DeviceMemory device;
  Event launched;
  Graph graph;
  std::uint64_t run = 0;  // the last, as they are counted
};

StepGraphs::StepGraphs() = default;
StepGraphs::~StepGraphs() = default;
void StepGraphs::forget() { steps_.clear(); }

// Its memory is in use until its last launch is done.
Result<> StepGraphs::forget_oldest() {
  const auto oldest =
      std::ranges::min_element(steps_, {}, [](const auto& step) { return step.second->run; });
  if (oldest->second->graph.get() != nullptr) {
    TUTTI_CUDA_CHECK(cudaEventSynchronize(oldest->second->launched.get()));
  }
  steps_.erase(oldest);
  return {};
}

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
  if (bytes == 0) return static_cast<void*>(nullptr);
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
      if (auto forgotten = forget_oldest(); !forgotten) return forgotten;
    }
    steps_.emplace(watch.signature, std::make_unique<Known>()).first->second->run = ++runs_;
    ++counts_.plain;
    return step();
  }
  Known& known = *found->second;
  known.run = ++runs_;
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
  WorkWatch watch;
  watch.hear(wanted.key);
  Capture capture(stream);
  if (auto begun = capture.begin(); !begun) return begun;
  {
    const InMode capturing(*this, Mode::capturing, &watch);
    TUTTI_CUDA_CHECK(cudaMemcpyAsync(known.device.get(), known.host.get(), bytes,
                                     cudaMemcpyHostToDevice, stream));
    if (auto done = step(); !done) return done;
  }
  const auto graph = capture.end();
  if (!graph) return graph.error();
  if (watch.signature != wanted.signature) {
    return Error{ErrorCode::internal, "a step does other work when it is captured"};
  }
  cudaGraphExec_t exec = nullptr;
  TUTTI_CUDA_CHECK(cudaGraphInstantiate(&exec, graph->get(), 0));
  known.graph = Graph(exec);
  return {};
}

Result<> StepGraphs::launch(cudaStream_t stream, Known& known) {
  TUTTI_CUDA_CHECK(cudaGraphLaunch(known.graph.get(), stream));
  TUTTI_CUDA_CHECK(cudaEventRecord(known.launched.get(), stream));
  return {};
}

}  // namespace tutti::kernels::cuda
