#include "kernels/cuda/products.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/graphs/work_watch.h"
#include "protocol/base/log.h"

namespace tutti::kernels::cuda {

namespace {

const char* name_of(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_NOT_SUPPORTED: return "not supported";
    case CUBLAS_STATUS_ALLOC_FAILED: return "no memory";
    case CUBLAS_STATUS_INVALID_VALUE: return "invalid value";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "not initialised";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "architecture mismatch";
    default: return "failed";
  }
}

const char* name_of(ProductForm form) {
  switch (form) {
    case ProductForm::nt: return "nt";
    case ProductForm::nn: return "nn";
    case ProductForm::tn: return "tn";
  }
  return "";
}

const char* name_of(ProductInputs inputs) {
  switch (inputs) {
    case ProductInputs::fp32: return "fp32";
    case ProductInputs::bf16: return "bf16";
    case ProductInputs::fp16: return "fp16";
    case ProductInputs::tf32: return "tf32";
    case ProductInputs::fp8: return "fp8";
  }
  return "";
}

Result<> check_blas(cublasStatus_t status, std::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return {};
  ErrorCode code = ErrorCode::unavailable;
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_ARCH_MISMATCH)
    code = ErrorCode::unsupported;
  if (status == CUBLAS_STATUS_INVALID_VALUE) code = ErrorCode::internal;  // what we gave it
  if (status == CUBLAS_STATUS_ALLOC_FAILED) code = ErrorCode::exhausted;
  return Error{code, fmt::format("{}: {} ({})", what, name_of(status), static_cast<int>(status))};
}

#define TUTTI_BLAS_CHECK(call)                                        \
  do {                                                                \
    if (auto tutti_checked = check_blas(call, #call); !tutti_checked) \
      return std::move(tutti_checked).error();                        \
  } while (false)

// cuBLASLt's objects, ended with their scope.
template <class Handle, cublasStatus_t (*kDestroy)(Handle)>
struct Ended {
  Handle handle = nullptr;
  Ended() = default;
  Ended(const Ended&) = delete;
  Ended& operator=(const Ended&) = delete;
  ~Ended() {
    if (handle != nullptr) static_cast<void>(kDestroy(handle));
  }
};
using MatmulDescription = Ended<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Ended<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Ended<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

// What a row-major product is to a library that stores columns: output^T = second^T first^T, each
// matrix seen turned.
struct Sides {
  cublasOperation_t first_turn;   // of `right`
  cublasOperation_t second_turn;  // of `left`
};

Sides sides_of(ProductForm form) {
  switch (form) {
    case ProductForm::nt: return {CUBLAS_OP_T, CUBLAS_OP_N};
    case ProductForm::nn: return {CUBLAS_OP_N, CUBLAS_OP_N};
    case ProductForm::tn: return {CUBLAS_OP_N, CUBLAS_OP_T};
  }
  return {CUBLAS_OP_N, CUBLAS_OP_N};
}

// Of what its vectors read.
constexpr std::uint64_t kBiasAlignment = 16;
bool takes_bias_at(const float* bias) {
  return reinterpret_cast<std::uintptr_t>(bias) % kBiasAlignment == 0;
}

constexpr std::uint32_t kAlignmentMost = 16;  // of what a thread reads at once

std::uint32_t alignment_of(std::uint64_t bytes) {
  std::uint32_t alignment = kAlignmentMost;
  while (bytes % alignment != 0) alignment /= 2;
  return alignment;
}

cudaDataType_t type_of(ProductInputs inputs) {
  switch (inputs) {
    case ProductInputs::bf16: return CUDA_R_16BF;
    case ProductInputs::fp16: return CUDA_R_16F;
    case ProductInputs::fp8: return CUDA_R_8F_E4M3;
    default: return CUDA_R_32F;
  }
}

cublasComputeType_t compute_of(ProductInputs inputs) {
  return inputs == ProductInputs::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

struct Side {
  cudaDataType_t type;
  const void* data;
  Index rows, columns, stride;

  std::uint64_t number_bytes() const {
    if (type == CUDA_R_8F_E4M3) return sizeof(std::uint8_t);
    return type == CUDA_R_32F ? sizeof(float) : sizeof(std::uint16_t);
  }
  std::uint32_t alignment() const {
    return std::min(alignment_of(static_cast<std::uint64_t>(stride) * number_bytes()),
                    alignment_of(reinterpret_cast<std::uintptr_t>(data)));
  }
};

// A matrix whose rows begin at multiples of `alignment`, and at no more: as the library is to see
// all that lie so.
Side side_for(cudaDataType_t type, Index rows, Index columns, std::uint32_t alignment) {
  Side side{type, nullptr, rows, columns, columns};
  while (side.alignment() < alignment) ++side.stride;
  const Index unit = static_cast<Index>(alignment / side.number_bytes());
  if (side.alignment() > alignment) side.stride += unit;
  return side;
}

Side side_of(const ConstMatrix& matrix) {
  return {CUDA_R_32F, matrix.data, matrix.rows, matrix.columns, matrix.stride};
}

// A row-major matrix is a column-major one of its columns by its rows.
Result<> describe(Layout& layout, const Side& side) {
  return check_blas(cublasLtMatrixLayoutCreate(&layout.handle, side.type,
                                               static_cast<std::uint64_t>(side.columns),
                                               static_cast<std::uint64_t>(side.rows), side.stride),
                    "cublasLtMatrixLayoutCreate");
}

}  // namespace

// A product as the library is told of it: with what it adds, or without.
struct Products::Wanted {
  ProductForm form;
  Inputs inputs;
  Side left, right, output;
  Side added;  // what is added to the sum, where `adds`: the output itself, or a residual
  bool adds = false;
  const float* bias = nullptr;
  const float* left_scales = nullptr;  // of codes
  const float* right_scales = nullptr;

  bool has_residual() const { return added.data != output.data; }
  Wanted without_ends() const {
    Wanted plain = *this;
    plain.added = output;
    plain.adds = adds && !has_residual();
    plain.bias = nullptr;
    return plain;
  }
  ProductAlignments alignments() const {
    return {left.alignment(), right.alignment(), output.alignment()};
  }
  // An algorithm is one for what is added as much as for the output.
  bool takes_added() const { return added.alignment() >= output.alignment(); }
  // All that the work depends on beside the memory.
  bool is_enqueued() const {
    const ProductAlignments lie = alignments();
    return enqueues("product", static_cast<int>(form), static_cast<int>(inputs), left.rows,
                    left.columns, left.stride, right.rows, right.columns, right.stride,
                    output.stride, added.stride, has_residual(), adds, bias != nullptr, lie.left,
                    lie.right, lie.output);
  }
};

// The library's objects for it.
struct Products::Call {
  MatmulDescription operation;
  Layout first, second, added, output;

  Result<> describe(const Wanted& wanted) {
    TUTTI_BLAS_CHECK(
        cublasLtMatmulDescCreate(&operation.handle, compute_of(wanted.inputs), CUDA_R_32F));
    const Sides sides = sides_of(wanted.form);
    TUTTI_BLAS_CHECK(cublasLtMatmulDescSetAttribute(operation.handle, CUBLASLT_MATMUL_DESC_TRANSA,
                                                    &sides.first_turn, sizeof(sides.first_turn)));
    TUTTI_BLAS_CHECK(cublasLtMatmulDescSetAttribute(operation.handle, CUBLASLT_MATMUL_DESC_TRANSB,
                                                    &sides.second_turn, sizeof(sides.second_turn)));
    if (wanted.bias != nullptr) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      TUTTI_BLAS_CHECK(cublasLtMatmulDescSetAttribute(
          operation.handle, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)));
      TUTTI_BLAS_CHECK(cublasLtMatmulDescSetAttribute(
          operation.handle, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &wanted.bias, sizeof(wanted.bias)));
    }
    if (wanted.inputs == ProductInputs::fp8) {
      if (auto scaled = scale(wanted); !scaled) return scaled;
    }
    if (auto made = cuda::describe(first, wanted.right); !made) return made;
    if (auto made = cuda::describe(second, wanted.left); !made) return made;
    if (auto made = cuda::describe(added, wanted.added); !made) return made;
    return cuda::describe(output, wanted.output);
  }

  // A factor for each row of both, and sums that are promoted to fp32 on the way.
  Result<> scale(const Wanted& wanted) {
    const std::int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    const std::int8_t fast = 0;
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      return check_blas(
          cublasLtMatmulDescSetAttribute(operation.handle, attribute, &value, sizeof(value)),
          "a product's scales");
    };
    // A product by columns has the right matrix for its first.
    for (const Result<>& done : {set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode),
                                 set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode),
                                 set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, wanted.right_scales),
                                 set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, wanted.left_scales),
                                 set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, fast)}) {
      if (!done) return done;
    }
    return {};
  }

  // Whether the algorithm runs it as it is described, and without memory of its own.
  bool is_taken(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t needs = {};
    const cublasStatus_t status =
        cublasLtMatmulAlgoCheck(handle, operation.handle, first.handle, second.handle, added.handle,
                                output.handle, &algorithm, &needs);
    return status == CUBLAS_STATUS_SUCCESS && needs.workspaceSize == 0;
  }

  // For where the heuristic offers none that runs with any number of rows: the first of all
  // algorithms of the library, with the first of its tiles and stages, that does. How fast it is
  // nobody says.
  static Result<std::optional<cublasLtMatmulAlgo_t>> search(const Products& products,
                                                            const Key& key);
};

std::string product_library() { return fmt::format("cublaslt-{}", cublasLtGetVersion()); }

bool products_scale_rows() {
  constexpr std::size_t kFirst = 120900;
  return cublasLtGetVersion() >= kFirst;
}

Result<std::unique_ptr<Products>> Products::open(ProductChoices choices) {
  std::unique_ptr<Products> products(new Products(std::move(choices)));
  TUTTI_BLAS_CHECK(cublasLtCreate(&products->handle_));
  return products;
}

Products::~Products() {
  if (handle_ != nullptr) static_cast<void>(cublasLtDestroy(handle_));
}

namespace {

// An address, before there is an operand.
alignas(16) constexpr float kSomeFloats[4] = {};

// A number of an algorithm's configuration; none: the algorithm does not say.
template <class Number>
std::optional<Number> configured(const cublasLtMatmulAlgo_t& algorithm,
                                 cublasLtMatmulAlgoConfigAttributes_t attribute) {
  Number number = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &number, sizeof(number), nullptr);
  return status == CUBLAS_STATUS_SUCCESS ? std::optional(number) : std::nullopt;
}

// An algorithm whose sums do not depend on how many rows there are: each is one thread block's.
// That excludes split-K, and kernels that share a tile's depth among blocks as these become free
// (stream-K), which no attribute names: both need memory for parts of sums, so none is offered. One
// that does not say is none to rely on.
bool sums_within_blocks(const cublasLtMatmulHeuristicResult_t& found) {
  const auto splits = configured<std::int32_t>(found.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
  const auto reduction =
      configured<std::uint32_t>(found.algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
  return found.state == CUBLAS_STATUS_SUCCESS && found.workspaceSize == 0 && splits && reduction &&
         (*splits == 0 || *splits == 1) && *reduction == CUBLASLT_REDUCTION_SCHEME_NONE;
}

// A product by columns has the right matrix for its first.
Result<> prefer(Preference& preference, const ProductAlignments& lie) {
  TUTTI_BLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference.handle));
  const std::uint64_t workspace = 0;
  TUTTI_BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
      preference.handle, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace)));
  const std::uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
  TUTTI_BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference.handle,
                                                        CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                        &reduction, sizeof(reduction)));
  const std::pair<cublasLtMatmulPreferenceAttributes_t, std::uint32_t> least[] = {
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, lie.right},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, lie.left},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, lie.output},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, lie.output}};
  for (const auto& [attribute, alignment] : least) {
    TUTTI_BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference.handle, attribute, &alignment,
                                                          sizeof(alignment)));
  }
  return {};
}

}  // namespace

// A product of the key with so many rows. `right` is [N, K] for nt and nn; the output is [N, K] for
// tn, and the rows are what is summed over. Of an algorithm that is to add a bias too, the library
// is asked with one: others may refuse it.
Products::Wanted Products::shaped(const Key& key, Index m, const float* bias) {
  const auto& [form, inputs, n, k, lie] = key;
  const cudaDataType_t type = type_of(inputs);
  const bool turned = form == ProductForm::tn;
  // Looked at when it runs; until then they must be somewhere.
  const float* const scales = inputs == ProductInputs::fp8 ? kSomeFloats : nullptr;
  const Side output =
      side_for(CUDA_R_32F, turned ? n : m, form == ProductForm::nt ? n : k, lie.output);
  return {.form = form,
          .inputs = inputs,
          .left = side_for(type, m, form == ProductForm::nt ? k : n, lie.left),
          .right = side_for(type, turned ? m : n, k, lie.right),
          .output = output,
          .added = output,
          .bias = bias,
          .left_scales = scales,
          .right_scales = scales};
}

// Whether it runs with other numbers of rows too: it is used for any, and was offered for many.
// Those at which kernels that read by vectors or tiles of rows may part.
Result<bool> Products::runs_with_few_rows(const Key& key, const float* bias,
                                          const cublasLtMatmulAlgo_t& algorithm) const {
  for (const Index rows : {1, 2, 3, 4, 8, 15, 16, 17, 64, 512}) {
    Call call;
    if (auto made = call.describe(shaped(key, rows, bias)); !made) return std::move(made).error();
    if (!call.is_taken(handle_, algorithm)) return false;
  }
  return true;
}

Result<std::optional<Products::Offer>> Products::ask(const Key& key, const float* bias) const {
  Call call;
  if (auto made = call.describe(shaped(key, kRowsAsked, bias)); !made)
    return std::move(made).error();
  Preference preference;
  if (auto set = prefer(preference, std::get<ProductAlignments>(key)); !set)
    return std::move(set).error();
  constexpr int kAsked = 16;
  cublasLtMatmulHeuristicResult_t found[kAsked] = {};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, call.operation.handle, call.first.handle, call.second.handle, call.added.handle,
      call.output.handle, preference.handle, kAsked, found, &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) count = 0;  // its word for: none
  const auto answered = check_blas(status, "cublasLtMatmulAlgoGetHeuristic");
  if (!answered && status != CUBLAS_STATUS_NOT_SUPPORTED) return answered.error();
  std::optional<Offer> best;
  for (int i = 0; i < count && (!best || !best->for_few_rows); ++i) {
    if (!sums_within_blocks(found[i])) continue;
    const auto few = runs_with_few_rows(key, bias, found[i].algo);
    if (!few) return few.error();
    if (!best || *few) best = Offer{found[i].algo, *few, i, count};
  }
  return best;
}

namespace {

constexpr int kAlgorithmsMax = 128;       // of the library; it has some fifty
constexpr int kConfigurationsMax = 1024;  // tiles or stages of one; it has some hundred

// Of an algorithm that was not asked for by how operands lie: whether it reads them as they do.
bool reads_so(const cublasLtMatmulAlgo_t& algorithm, const ProductChoices::Key& key) {
  const auto& lie = std::get<ProductAlignments>(key);
  // A product by columns has the right matrix for its first.
  const std::pair<cublasLtMatmulAlgoCapAttributes_t, std::uint32_t> given[] = {
      {CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_A_BYTES, lie.right},
      {CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_B_BYTES, lie.left},
      {CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_C_BYTES, lie.output},
      {CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_D_BYTES, lie.output}};
  return std::ranges::all_of(given, [&](const auto& matrix) {
    std::uint32_t least = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoCapGetAttribute(&algorithm, matrix.first, &least, sizeof(least), nullptr);
    return status == CUBLAS_STATUS_SUCCESS && least <= matrix.second;
  });
}

// What an algorithm may be configured with, by a list of numbers; it may have none to choose from.
std::vector<std::uint32_t> configurations(const cublasLtMatmulAlgo_t& algorithm,
                                          cublasLtMatmulAlgoCapAttributes_t of) {
  std::uint32_t numbers[kConfigurationsMax] = {};
  std::size_t bytes = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoCapGetAttribute(&algorithm, of, numbers, sizeof(numbers), &bytes);
  if (status != CUBLAS_STATUS_SUCCESS) bytes = 0;
  if (bytes == 0) return {0};  // undefined: its own
  return {numbers, numbers + bytes / sizeof(numbers[0])};
}

}  // namespace

Result<std::optional<cublasLtMatmulAlgo_t>> Products::Call::search(const Products& products,
                                                                   const Key& key) {
  cublasLtHandle_t const handle = products.handle_;
  const auto inputs = std::get<Inputs>(key);
  const cudaDataType_t type = type_of(inputs);
  const cublasComputeType_t compute = compute_of(inputs);
  Call call;
  if (auto made = call.describe(shaped(key, kRowsAsked, nullptr)); !made)
    return std::move(made).error();
  int ids[kAlgorithmsMax] = {};
  int count = 0;
  TUTTI_BLAS_CHECK(cublasLtMatmulAlgoGetIds(handle, compute, CUDA_R_32F, type, type, CUDA_R_32F,
                                            CUDA_R_32F, kAlgorithmsMax, ids, &count));
  for (int i = 0; i < count; ++i) {
    cublasLtMatmulAlgo_t algorithm;
    // Without split-K, as it begins.
    if (cublasLtMatmulAlgoInit(handle, compute, CUDA_R_32F, type, type, CUDA_R_32F, CUDA_R_32F,
                               ids[i], &algorithm) != CUBLAS_STATUS_SUCCESS)
      continue;
    const auto all_stages = configurations(algorithm, CUBLASLT_ALGO_CAP_STAGES_IDS);
    for (const std::uint32_t tile : configurations(algorithm, CUBLASLT_ALGO_CAP_TILE_IDS)) {
      for (const std::uint32_t stages : all_stages) {
        const bool set =
            cublasLtMatmulAlgoConfigSetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID, &tile,
                                                 sizeof(tile)) == CUBLAS_STATUS_SUCCESS &&
            cublasLtMatmulAlgoConfigSetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID,
                                                 &stages, sizeof(stages)) == CUBLAS_STATUS_SUCCESS;
        if (!set) continue;
        if (!call.is_taken(handle, algorithm) || !reads_so(algorithm, key)) continue;
        const auto few = products.runs_with_few_rows(key, nullptr, algorithm);
        if (!few) return few.error();
        if (*few) return std::optional(algorithm);
      }
    }
  }
  return std::optional<cublasLtMatmulAlgo_t>();
}

Result<cublasLtMatmulAlgo_t> Products::choose(const Key& key) const {
  const auto& [form, inputs, n, k, lie] = key;
  const auto said = [&](const cublasLtMatmulAlgo_t& algorithm, const std::string& how) {
    TUTTI_LOG_INFO("cuda", "products {} of {} by a weight of {} x {}: {}", name_of(form),
                   name_of(inputs), n, k, how);
    return algorithm;
  };
  const auto rank_of = [](const Offer& offer) {
    return fmt::format("algorithm {} of the {} offered", offer.rank + 1, offer.of);
  };
  std::optional<Offer> best;
  for (const float* const bias : {kSomeFloats + 0, static_cast<const float*>(nullptr)}) {
    // To codes' sums it would add one in bf16 only.
    const bool takes_bias = form == ProductForm::nt && inputs != Inputs::fp8;
    if (bias != nullptr && !takes_bias) continue;
    const auto offer = ask(key, bias);
    if (!offer) return offer.error();
    if (*offer && (*offer)->for_few_rows) {
      return said((*offer)->algorithm, rank_of(**offer) + (bias != nullptr ? ", with a bias" : ""));
    }
    if (!best) best = *offer;
  }
  const auto found = Call::search(*this, key);
  if (!found) return found.error();
  if (*found) return said(**found, "none offered runs with few rows: the first of all that does");
  if (best) return said(best->algorithm, rank_of(*best) + ", which does not run with few rows");
  return Error{ErrorCode::unsupported,
               fmt::format("cuBLASLt has no algorithm that sums within one thread block for a "
                           "weight of {} x {}",
                           n, k)};
}

Result<Products::Ends> Products::run(cudaStream_t stream, ProductForm form, const Product& args,
                                     const Operands* operands) {
  const Inputs inputs = operands == nullptr ? Inputs::fp32 : operands->type;
  const bool residual = static_cast<bool>(args.residual);
  const Side output = side_of(args.output);
  Wanted wanted{.form = form,
                .inputs = inputs,
                .left = side_of(args.left),
                .right = side_of(args.right),
                .output = output,
                .added = residual ? side_of(args.residual) : output,
                .adds = residual || args.start == ChainStart::output,
                .bias = args.bias};
  if (operands != nullptr && operands->left != nullptr) {
    const auto replace = [&](Side& side, const void* data, Index stride) {
      side = {type_of(inputs), data, side.rows, side.columns, stride};
    };
    replace(wanted.left, operands->left, operands->left_stride);
    replace(wanted.right, operands->right, operands->right_stride);
    wanted.left_scales = operands->left_scales;
    wanted.right_scales = operands->right_scales;
  }
  const Side& weight = form == ProductForm::tn ? wanted.output : wanted.right;
  const Key key{form, inputs, weight.rows, weight.columns, wanted.alignments()};
  const auto chosen = choices_.take(key, [&] { return choose(key); });
  if (!chosen) return chosen.error();
  Ends ends = Ends::added;
  if (args.bias != nullptr || residual) {
    Call whole;
    if (auto made = whole.describe(wanted); !made) return std::move(made).error();
    if (!takes_bias_at(args.bias) || !wanted.takes_added() || !whole.is_taken(handle_, *chosen)) {
      ends = Ends::left_out;
      wanted = wanted.without_ends();
    }
  }
  if (!wanted.is_enqueued()) return ends;
  Call call;
  if (auto made = call.describe(wanted); !made) return std::move(made).error();
  const float one = 1.0F;
  const float beta = wanted.adds ? 1.0F : 0.0F;
  TUTTI_BLAS_CHECK(cublasLtMatmul(handle_, call.operation.handle, &one, wanted.right.data,
                                  call.first.handle, wanted.left.data, call.second.handle, &beta,
                                  wanted.added.data, call.added.handle, args.output.data,
                                  call.output.handle, &*chosen, nullptr, 0, stream));
  return ends;
}

}  // namespace tutti::kernels::cuda
