// A GPU as ops see it (kernels/tensor/device.h): two streams, scratch memory of ops, and a pinned
// ring through which host data goes up.
//
// Everything that computes runs on one stream, so that an op may use the scratch memory of the op
// before it. The exchange of gradients, which overlaps with it, runs on the second one: the group
// orders it behind the first by an event, and waits for it.
//
// Ownership: owns streams, scratch and ring; make it after fork, one a process and GPU. Threads:
// one. Errors: those of runtime.h; after `unavailable` the device is lost, and the process should
// end.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/attention/attention_bf16.h"
#include "kernels/cuda/graphs/step_graphs.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/scratch.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels::cuda {

struct DeviceOptions {
  int index = 0;
  // What products and attention compute with; memory, sums and all other ops are fp32.
  Products::Inputs inputs = Products::Inputs::fp32;
  // Where choices of product algorithms are kept, a file for each kind of device and version of the
  // library; empty: nowhere.
  std::filesystem::path cache = {};
  // Tests: each op ends before the next begins, so that host memory it was given may be looked at.
  enum class Waiting { at_request, after_each_op } waiting = Waiting::at_request;
  // Whether repeated steps become graphs.
  enum class Graphs { on, off } graphs = Graphs::on;
};

// The numerics profile of work on such a device.
std::string profile_of(const cudaDeviceProp& properties, Products::Inputs inputs);
// Whether it multiplies codes with a scale for each row: the library does on Hopper alone.
bool has_fp8(const cudaDeviceProp& properties);

class CudaDevice final : public Device {
 public:
  static Result<std::unique_ptr<CudaDevice>> open(const DeviceOptions& options);
  ~CudaDevice() override;

  cudaStream_t stream() const { return stream_.get(); }
  // Memory of the op that is being enqueued; taken anew by the next one.
  ScratchMemory& scratch() { return scratch_; }
  Products& products() { return *products_; }

  std::string_view name() const override { return name_; }
  std::string_view profile() const override { return profile_; }
  std::string choices() const override;
  std::string choice_table() const override;
  Result<> adopt_choices(const std::string& table) override;
  Result<std::string> link_id() override;
  Result<std::unique_ptr<Communicator>> link(std::unique_ptr<Communicator> group,
                                             const std::string& id) override;
  Result<std::size_t> free_bytes() override;
  Result<void*> allocate(std::size_t bytes) override;
  void release(void* memory) noexcept override;
  Result<> upload(void* to, const void* from, std::size_t bytes) override;
  Result<> download(void* to, const void* from, std::size_t bytes) override;
  Result<> copy(void* to, const void* from, std::size_t bytes) override;
  Result<> zero(void* memory, std::size_t bytes) override;
  Result<> round(const ConstMatrix& from, const RoundedMatrix& to) override;
  Result<> make_fp8(const ConstMatrix& weight, const Fp8Weight& to) override;
  Result<> synchronize() override;
  Result<> run_repeated(std::uint64_t key, const std::function<Result<>()>& step) override;
  // Of repeated steps, for tests and benchmarks.
  const StepGraphs::Counts& graph_counts() const { return graphs_.counts(); }

  // What follows the sums of a product (ops/product.h); `sums` may be the output, empty: zeros.
  struct ProductEnds {
    ConstMatrix sums;
    Matrix output;
    BasicMatrix<Bf16> narrow;  // in place of output
    const float* bias;
    ConstMatrix residual;
    std::optional<Activation> activation;
    ConstMatrix gate;
  };

  Result<> enqueue(const ActivationBackward& args) override;
  Result<> enqueue(const ActivationForward& args) override;
  Result<> enqueue(const AdafactorUpdate& args) override;
  Result<> enqueue(const AdamW8Update& args) override;
  Result<> enqueue(const AdamWUpdate& args) override;
  Result<> enqueue(const AddInto& args) override;
  Result<> enqueue(const AttentionBackward& args) override;
  Result<> enqueue(const AttentionCached& args) override;
  Result<> enqueue(const AttentionForward& args) override;
  Result<> enqueue(const ColumnSums& args) override;
  Result<> enqueue(const Dropout& args) override;
  Result<> enqueue(const EmbeddingBackward& args) override;
  Result<> enqueue(const EmbeddingForward& args) override;
  Result<> enqueue(const FromBf16& args) override;
  Result<> enqueue(const GateBackward& args) override;
  Result<> enqueue(const GateForward& args) override;
  Result<> enqueue(const HashBlocks& args) override;
  Result<> enqueue(const KeyValueWrite& args) override;
  Result<> enqueue(const LayerNormBackward& args) override;
  Result<> enqueue(const LayerNormForward& args) override;
  Result<> enqueue(const LinearCrossEntropy& args) override;
  Result<> enqueue(const LionUpdate& args) override;
  Result<> enqueue(const LogSoftmax& args) override;
  Result<> enqueue(const MuonUpdate& args) override;
  Result<> enqueue(ProductForm form, const Product& args) override;
  Result<> enqueue(const RmsNormBackward& args) override;
  Result<> enqueue(const RmsNormForward& args) override;
  Result<> enqueue(const RotaryAngles& args) override;
  Result<> enqueue(const RotaryApply& args) override;
  Result<> enqueue(const ScheduleFreeAverage& args) override;
  Result<> enqueue(const ScheduleFreeUpdate& args) override;
  Result<> enqueue(const SgdUpdate& args) override;
  Result<> enqueue(const SiluGateBackward& args) override;
  Result<> enqueue(const SiluGateForward& args) override;
  Result<> enqueue(const SoftmaxBackward& args) override;
  Result<> enqueue(const SoftmaxForward& args) override;
  Result<> enqueue(const SquareSums& args) override;
  Result<> enqueue(const StochasticBf16& args) override;
  Result<> enqueue(const ToBf16& args) override;
  Result<> enqueue(const TreeSum& args) override;
  Result<> enqueue(const PieceSum& args) override;
  Result<> enqueue(const QuantisedProduct& args) override;
  Result<> enqueue(const QuantisedProductNn& args) override;
  Result<> enqueue(const ChooseTokens& args) override;

 private:
  CudaDevice() = default;

  // Host numbers in scratch memory.
  template <class T>
  Result<T*> stage(const T* from, std::size_t count) {
    if (graphs_.takes_data()) {
      auto place = graphs_.stage(from, count * sizeof(T));
      if (!place) return std::move(place).error();
      return static_cast<T*>(*place);
    }
    auto memory = scratch_.take(count * sizeof(T));
    if (!memory) return std::move(memory).error();
    if (auto sent = upload(*memory, from, count * sizeof(T)); !sent) return std::move(sent).error();
    return static_cast<T*>(*memory);
  }
  Result<float*> scratch_floats(Index count);
  // The angles of positions below `positions`, in angles_.
  Result<> grow_angles(std::span<const float> frequencies, Index positions);
  // Of a batch; other forms, and cached keys, take the fp32 kernels.
  bool on_tensor_cores(const AttentionShape& shape) const;
  // Whether attention reads and leaves these. Errors: unsupported.
  Result<> takes_rounded(const char* op, const AttentionShape& shape,
                         std::initializer_list<ConstRoundedMatrix> rounded) const;
  // What attention on tensor cores works with, during an op.
  Bf16Attention bf16_attention();
  // To what products' inputs are rounded first; none: they are read as they are.
  std::optional<Narrow> narrow_inputs() const;
  // Of an op that is given rounded matrices (ops/elementwise/rounded.h), or none. Errors:
  // unsupported.
  Result<Narrow> narrow_of(const char* op, std::initializer_list<bool> rounded) const;
  // `from` in scratch memory, as products read it.
  Result<ConstRoundedMatrix> round_operand(const ConstMatrix& from, Narrow narrow);
  bool computes_in_bf16() const { return narrow_inputs() == Narrow::bf16; }
  Result<Fp8Rows> fp8_room(Index rows, Index columns);
  // The operands of a product that reads codes, in scratch memory where they are not there yet.
  Result<Products::Operands> fp8_operands(ProductForm form, const Product& args);
  // A product by the library.
  Result<> multiply(ProductForm form, const Product& args);
  Result<> finish_product(const ProductEnds& ends);
  struct LossRoom;
  Result<LossRoom> loss_room(const LinearCrossEntropy& args);
  Result<> run_loss(const LinearCrossEntropy& args, const LossRoom& room, Index first);
  Result<> add_losses(const LinearCrossEntropy& args);
  cudaMemcpyKind kind(cudaMemcpyKind meant) const;
  void begin_op() {
    scratch_.reset();
    host_.reset();
  }
  bool forget_scratch();
  // After the last launch of an op: whether all of them could be enqueued.
  Result<> end_op();

  struct Angles {
    std::vector<float> frequencies;
    Index positions = 0;
    DeviceMemory cosine;  // [positions, frequencies]
    DeviceMemory sine;
  };

  Stream stream_;
  Stream link_;  // of transfers between devices
  DeviceOptions options_;
  ScratchMemory scratch_;
  HostScratch host_;
  UploadRing ring_;
  StepGraphs graphs_;
  Angles angles_;
  std::unique_ptr<Products> products_;
  std::vector<std::pair<void*, DeviceMemory>> memory_;
  std::size_t shared_bytes_max_ = 0;  // that a block may ask for
  std::string name_;
  std::string profile_;
};

}  // namespace tutti::kernels::cuda
