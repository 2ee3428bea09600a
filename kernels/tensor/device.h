// An accelerator that ops run on in place of the rank's threads: its memory, its queue of work, and
// one `enqueue` for each op that it has.
//
// An op checks its arguments and then, where its context names a device, hands them over:
//
//   if (ctx.device != nullptr) return ctx.device->enqueue(args);
//
// So shapes and errors are the same everywhere. An enqueued op has not run when the call returns;
// matrices and float pointers are device memory, while spans of integers (tokens, offsets,
// positions, page lists) are host memory, which the device copies before it returns. What an op
// writes beside matrices (losses, hashes, sums) is device memory too.
//
// Ownership: the rank owns its device; buffers keep a pointer to it. Threads: one, the rank's
// computing thread. Errors: of arguments by the ops; exhausted (no memory, with the numbers);
// unavailable (the device failed and will not recover: it ends the rank as the infrastructure's).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/tensor/matrix.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

class Communicator;
struct ActivationBackward;
struct ActivationForward;
struct AdafactorUpdate;
struct AdamW8Update;
struct AdamWUpdate;
struct AddInto;
struct AttentionBackward;
struct AttentionCached;
struct AttentionForward;
struct ChooseTokens;
struct ColumnSums;
struct Dropout;
struct EmbeddingBackward;
struct EmbeddingForward;
struct Fp8Weight;
struct FromBf16;
struct GateBackward;
struct GateForward;
struct HashBlocks;
struct KeyValueWrite;
struct LayerNormBackward;
struct LayerNormForward;
struct LinearCrossEntropy;
struct LionUpdate;
struct LogSoftmax;
struct MuonUpdate;
struct Product;
struct RmsNormBackward;
struct RmsNormForward;
struct RotaryAngles;
struct RotaryApply;
struct ScheduleFreeAverage;
struct ScheduleFreeUpdate;
struct SgdUpdate;
struct SiluGateBackward;
struct SiluGateForward;
struct SoftmaxBackward;
struct SoftmaxForward;
struct SquareSums;
struct StochasticBf16;
struct ToBf16;
struct TreeSum;
struct PieceSum;
struct QuantisedProduct;
struct QuantisedProductNn;

// Which of its two matrices a product takes turned (product.h).
enum class ProductForm { nt, nn, tn };

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string_view name() const = 0;
  // The numerics profile (DESIGN numerics): a run's bits depend on it.
  virtual std::string_view profile() const = 0;
  // The hash of what was chosen among a library's algorithms for the products so far; empty: none.
  // It belongs to the profile once all products of a job were met (Trainer::rehearse).
  virtual std::string choices() const = 0;

  // How ranks on such devices exchange device memory directly. `link_id`: text that lets one
  // generation's ranks meet, made by each, that of rank 0 used by all. `link` wraps the group that
  // they have formed over sockets.
  virtual Result<std::string> link_id() = 0;
  virtual Result<std::unique_ptr<Communicator>> link(std::unique_ptr<Communicator> group,
                                                     const std::string& id) = 0;

  // What can still be allocated.
  virtual Result<std::size_t> free_bytes() = 0;
  // 256-byte aligned; contents are anything.
  virtual Result<void*> allocate(std::size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;

  // In the order of the queue. `from` may be changed once upload returns; download waits for the
  // bytes.
  virtual Result<> upload(void* to, const void* from, std::size_t bytes) = 0;
  virtual Result<> download(void* to, const void* from, std::size_t bytes) = 0;
  virtual Result<> copy(void* to, const void* from, std::size_t bytes) = 0;
  virtual Result<> zero(void* memory, std::size_t bytes) = 0;
  // `from` as products read it (ops/elementwise/rounded.h, whose errors these are).
  virtual Result<> round(const ConstMatrix& from, const BasicMatrix<std::uint16_t>& to) = 0;
  // The codes of `weight` into memory of that shape (ops/elementwise/fp8_rows.h). Errors:
  // invalid_argument (a shape that has none), unsupported (a device that was not opened for fp8).
  virtual Result<> make_fp8(const ConstMatrix& weight, const Fp8Weight& to) = 0;
  // Until all that was enqueued is done.
  virtual Result<> synchronize() = 0;

  virtual Result<> enqueue(const ActivationBackward& args) = 0;
  virtual Result<> enqueue(const ActivationForward& args) = 0;
  virtual Result<> enqueue(const AdafactorUpdate& args) = 0;
  virtual Result<> enqueue(const AdamW8Update& args) = 0;
  virtual Result<> enqueue(const AdamWUpdate& args) = 0;
  virtual Result<> enqueue(const AddInto& args) = 0;
  virtual Result<> enqueue(const AttentionBackward& args) = 0;
  virtual Result<> enqueue(const AttentionCached& args) = 0;
  virtual Result<> enqueue(const AttentionForward& args) = 0;
  virtual Result<> enqueue(const ColumnSums& args) = 0;
  virtual Result<> enqueue(const Dropout& args) = 0;
  virtual Result<> enqueue(const EmbeddingBackward& args) = 0;
  virtual Result<> enqueue(const EmbeddingForward& args) = 0;
  virtual Result<> enqueue(const FromBf16& args) = 0;
  virtual Result<> enqueue(const GateBackward& args) = 0;
  virtual Result<> enqueue(const GateForward& args) = 0;
  virtual Result<> enqueue(const HashBlocks& args) = 0;
  virtual Result<> enqueue(const KeyValueWrite& args) = 0;
  virtual Result<> enqueue(const LayerNormBackward& args) = 0;
  virtual Result<> enqueue(const LayerNormForward& args) = 0;
  virtual Result<> enqueue(const LinearCrossEntropy& args) = 0;
  virtual Result<> enqueue(const LionUpdate& args) = 0;
  virtual Result<> enqueue(const LogSoftmax& args) = 0;
  virtual Result<> enqueue(const MuonUpdate& args) = 0;
  virtual Result<> enqueue(ProductForm form, const Product& args) = 0;
  virtual Result<> enqueue(const RmsNormBackward& args) = 0;
  virtual Result<> enqueue(const RmsNormForward& args) = 0;
  virtual Result<> enqueue(const RotaryAngles& args) = 0;
  virtual Result<> enqueue(const RotaryApply& args) = 0;
  virtual Result<> enqueue(const ScheduleFreeAverage& args) = 0;
  virtual Result<> enqueue(const ScheduleFreeUpdate& args) = 0;
  virtual Result<> enqueue(const SgdUpdate& args) = 0;
  virtual Result<> enqueue(const SiluGateBackward& args) = 0;
  virtual Result<> enqueue(const SiluGateForward& args) = 0;
  virtual Result<> enqueue(const SoftmaxBackward& args) = 0;
  virtual Result<> enqueue(const SoftmaxForward& args) = 0;
  virtual Result<> enqueue(const SquareSums& args) = 0;
  virtual Result<> enqueue(const StochasticBf16& args) = 0;
  virtual Result<> enqueue(const ToBf16& args) = 0;
  virtual Result<> enqueue(const TreeSum& args) = 0;
  virtual Result<> enqueue(const PieceSum& args) = 0;
  virtual Result<> enqueue(const QuantisedProduct& args) = 0;
  virtual Result<> enqueue(const QuantisedProductNn& args) = 0;
  virtual Result<> enqueue(const ChooseTokens& args) = 0;

  // Calls `step`, which enqueues ops, at least once; ops that have been enqueued like that before
  // may be started together, as a captured graph. All memory that they use is named by `key`, but
  // for host memory and the addresses in it; the step neither allocates, nor copies to or from the
  // host, nor waits, and does the same when it is called again.
  virtual Result<> run_repeated(std::uint64_t key, const std::function<Result<>()>& step) = 0;

  // What choices() is the hash of, one line a choice; and choices of another process, to be taken
  // from now on whatever this one would choose. Errors: corrupt (not such a text).
  virtual std::string choice_table() const = 0;
  virtual Result<> adopt_choices(const std::string& table) = 0;
};

}  // namespace tutti::kernels
