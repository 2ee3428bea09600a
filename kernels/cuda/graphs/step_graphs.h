// Steps that enqueue the same work again and again, as captured graphs: one call starts what were
// some hundred launches.
//
// A step's ops run their host code each time, but muted: their launches only add to a signature
// (names, grids, sizes), and their host data (tokens, positions, pages) is gathered in the order in
// which they stage it. By the signature:
//
//   first time    the step is run as it is; whatever it needs for its first time it has then
//   second time   it is captured: the host data goes up from pinned memory in the first node
//   later         the host data is put into that pinned memory, and the graph is launched
//
// So a graph stands for one bucket of shapes, and can never be replayed for a step that would do
// other work. What a signature does not hear is which memory is used: `key` names that.
//
// Ownership: owns graphs and their memory. Threads: one. Limits: kGraphsMax; one more takes the
// place of the one that was not run for longest. Errors: those of the step; internal, where a step
// allocates or waits, which a capture cannot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/graphs/work_watch.h"
#include "kernels/cuda/runtime.h"

namespace tutti::kernels::cuda {

class StepGraphs {
 public:
  static constexpr std::size_t kGraphsMax = 128;
  using Step = std::function<Result<>()>;

  struct Counts {
    std::uint64_t plain = 0;
    std::uint64_t captured = 0;
    std::uint64_t replayed = 0;
  };
  const Counts& counts() const { return counts_; }

  StepGraphs();
  ~StepGraphs();

  Result<> run(cudaStream_t stream, std::uint64_t key, const Step& step);
  // The work is done by then: for what graphs were made with is about to end.
  void forget();

  // Whether an op's host data is to be staged here.
  bool takes_data() const { return mode_ != Mode::off; }
  bool captures() const { return mode_ == Mode::capturing; }
  // Where it will be on the device.
  Result<void*> stage(const void* from, std::size_t bytes);

 private:
  enum class Mode { off, muted, capturing };
  struct Known;
  struct InMode;
  struct Wanted {
    std::uint64_t key, signature;
  };
  Result<> capture(cudaStream_t stream, const Wanted& wanted, Known& known, const Step& step);
  Result<> launch(cudaStream_t stream, Known& known);
  Result<> forget_oldest();

  Mode mode_ = Mode::off;
  std::vector<std::byte> data_;  // of the step, as it was gathered
  std::size_t placed_ = 0;       // of it, while capturing
  std::byte* to_ = nullptr;      // likewise
  std::map<std::uint64_t, std::unique_ptr<Known>> steps_;
  std::uint64_t runs_ = 0;
  Counts counts_;
};

}  // namespace tutti::kernels::cuda
