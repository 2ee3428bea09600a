// Products behind cuBLASLt's entry points: column-major, fp32, bf16, fp16 or fp8 inputs, fp32 sums
// and output. In TF32 inputs are rounded to 11 bits, to the nearest; how the library does it, it
// does not say.
//
// Of 8-bit inputs it wants what the library does: A turned and B not, both not of e5m2, rows,
// columns and distances of rows that are multiples of 16, a scale for each column of both (another
// mode is not modelled), and no fp32 bias. A sum is multiplied by both scales at its end; the GPU's
// sums of them have fewer bits than these.
//
// The library is free in its choice of algorithm, so the heuristic offers first what code that
// keeps bits must not take: one that does not say what it does, one with split-K, and one
// (stream-K) that needs a workspace and cuts sums where the number of columns says so. Asked
// without a bias, it then offers one that takes neither a bias nor another C than D, which is
// answered as the library would. An algorithm that was not handed out, or that splits, computes
// nothing. Before the right one it offers one that does not run with few rows, and one that runs
// with any number but 15; a bias must be aligned.
//
// Which of the library's algorithms a product has follows from what was asked for, and each adds in
// an order of its own. So here the order of what the heuristic offers follows from the shapes,
// types, turns and alignments it was asked with: equal sums of two products that were not asked for
// alike are chance. A sum is one to sixteen chains, each of the terms at equal distances, that are
// added up at the end, from the first term or from the last.
//
// Whether a bias is added before C or after it, the library does not say: here before, where the
// ops have it after.
//
// All that it has are four algorithms: one that takes no tile, two that nobody must take, and a
// right one, which is not ready before it is given a tile and reads operands however they lie.
//
// An algorithm is for operands that lie as it was asked for: it reads each by what its rows, and
// the address that was promised, are multiples of. Operands that lie worse it cannot read, and
// what lies better than it was asked for would be read in small pieces; both are refused.
//
// TUTTI_EMULATION_BIAS=0: no algorithm takes a bias. TUTTI_EMULATION_OFFERED_ROWS_MIN: what the
// heuristic offers runs with no fewer. TUTTI_EMULATION_BACKWARDS: all add in the other direction.
// TUTTI_EMULATION_ROWS_MIN: none runs with fewer. TUTTI_EMULATION_BLAS_MEMORY=0: a
// product finds none for the library's own needs. TUTTI_EMULATION_BLAS: its version.
#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <vector>

namespace {

using tutti::emulation::OwnWork;

constexpr std::uint64_t kAlgorithmMark = 0x7475747469ULL;
constexpr std::uint64_t kStreamWorkspace = 1 << 20;
constexpr std::size_t kStreamCut = 7;
constexpr std::uint64_t kRawMark = 0x726177ULL;  // before it has a tile
constexpr std::uint64_t kManyRows = 32;
constexpr std::uint64_t kRefusedRows = 15;
constexpr std::uint64_t kSplitsUnsaid = 99;
constexpr std::uint32_t kTiles[] = {5, 9};  // that some algorithm has
constexpr std::uint64_t kBiasAlignment = 16;
constexpr std::uint64_t kVersion = 130000;
constexpr std::uint64_t kFirstToScaleRows = 120900;
constexpr std::size_t kEightsUnit = 16;

// What an algorithm's words mean here.
struct Algorithm {
  std::uint64_t mark = kAlgorithmMark;
  std::uint64_t splits = 1;
  std::uint64_t workspace = 0;
  std::uint64_t plain_only = 0;  // no bias, and C is D
  std::uint64_t rows_min = 0;
  std::uint64_t reads = 0;    // alignments of A, B and D, a byte each; 0: any
  std::uint64_t refuses = 0;  // this number of rows
  std::uint64_t order = 0;    // backwards, and the logarithm of how many chains

  cublasLtMatmulAlgo_t words() const {
    return {{mark, splits, workspace, plain_only, rows_min, reads, refuses, order}};
  }
  std::uint64_t reads_of(int matrix) const { return reads >> 8 * matrix & 0xff; }
  bool backwards() const {
    return (order & 1) != (std::getenv("TUTTI_EMULATION_BACKWARDS") != nullptr ? 1U : 0U);
  }
  std::size_t chains() const { return std::size_t{1} << std::min<std::uint64_t>(order >> 1, 4); }
};
Algorithm algorithm_of(const cublasLtMatmulAlgo_t& words) {
  return {words.data[0], words.data[1], words.data[2], words.data[3],
          words.data[4], words.data[5], words.data[6], words.data[7]};
}

constexpr std::uint64_t kOrders = 10;

// FNV-1a.
std::uint64_t hash_of(std::initializer_list<std::uint64_t> words) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const std::uint64_t word : words) {
    for (int byte = 0; byte < 8; ++byte) {
      hash = (hash ^ (word >> 8 * byte & 0xff)) * 0x100000001b3ULL;
    }
  }
  return hash ^ hash >> 32;
}

std::uint64_t number_said(const char* name) {
  const char* const text = std::getenv(name);
  return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
}

float value_of_half(std::uint16_t half) {
  const int exponent = half >> 10 & 0x1f;
  const int digits = half & 0x3ff;
  float value = 0.0F;
  if (exponent == 0x1f) {
    value = digits == 0 ? HUGE_VALF : NAN;
  } else {
    value = exponent == 0 ? std::ldexp(static_cast<float>(digits), -24)
                          : std::ldexp(static_cast<float>(digits + 0x400), exponent - 25);
  }
  return (half & 0x8000) != 0 ? -value : value;
}

bool is_eights(cudaDataType_t type) { return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2; }

// Of e4m3 all codes are numbers but one; e5m2 is the upper half of binary16.
float value_of_eights(std::uint8_t code, cudaDataType_t type) {
  if (type == CUDA_R_8F_E5M2) return value_of_half(static_cast<std::uint16_t>(code << 8));
  const int exponent = code >> 3 & 0xf;
  const int digits = code & 7;
  float value = exponent == 0 ? std::ldexp(static_cast<float>(digits), -9)
                              : std::ldexp(static_cast<float>(digits + 8), exponent - 10);
  if ((code & 0x7f) == 0x7f) value = NAN;
  return (code & 0x80) != 0 ? -value : value;
}

float rounded_to_tf32(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof(bits));
  if (!std::isfinite(x)) return x;
  bits = (bits + 0xfffU + (bits >> 13 & 1U)) & ~0x1fffU;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

float widened(const void* data, cudaDataType_t type, std::size_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[i];
  if (is_eights(type)) return value_of_eights(static_cast<const std::uint8_t*>(data)[i], type);
  const std::uint16_t word = static_cast<const std::uint16_t*>(data)[i];
  if (type == CUDA_R_16F) return value_of_half(word);
  const unsigned bits = unsigned{word} << 16;
  float value = 0.0F;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace

struct EmulatedBlas {};
struct EmulatedMatmul {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cublasOperation_t a = CUBLAS_OP_N;
  cublasOperation_t b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const float* bias = nullptr;
  const float* a_scales = nullptr;
  const float* b_scales = nullptr;
  std::int32_t a_mode = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  std::int32_t b_mode = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  std::int8_t fast = 0;
};
struct EmulatedLayout {
  cudaDataType_t type;
  std::size_t rows, columns, stride;
};
struct EmulatedPreference {
  std::uint64_t workspace = 0;
  std::uint32_t alignments[4] = {256, 256, 256, 256};  // of the addresses of A, B, C and D
};

namespace {

std::uint64_t alignment_of(std::uint64_t bytes) {
  std::uint64_t alignment = 16;
  while (bytes % alignment != 0) alignment /= 2;
  return alignment;
}
// Of the rows of who stores by rows.
std::uint64_t row_alignment(const EmulatedLayout& layout) {
  const std::uint64_t wide = layout.type == CUDA_R_32F ? 4 : 2;
  return alignment_of(layout.stride * (is_eights(layout.type) ? 1 : wide));
}
std::uint64_t alignment_at(const EmulatedLayout& layout, const void* address) {
  return std::min(row_alignment(layout), alignment_of(reinterpret_cast<std::uintptr_t>(address)));
}

// What the library wants of types, turns and shapes.
bool takes(const EmulatedMatmul& product, const EmulatedLayout& a, const EmulatedLayout& b,
           const EmulatedLayout& d) {
  const bool scaled = product.a_scales != nullptr || product.b_scales != nullptr ||
                      product.a_mode != 0 || product.b_mode != 0;
  if (!is_eights(a.type) && !is_eights(b.type)) return !scaled;
  const auto whole = [](const EmulatedLayout& x) {
    return x.rows % kEightsUnit == 0 && x.stride % kEightsUnit == 0;
  };
  return is_eights(a.type) && is_eights(b.type) &&
         (a.type == CUDA_R_8F_E4M3 || b.type == CUDA_R_8F_E4M3) && product.a == CUBLAS_OP_T &&
         product.b == CUBLAS_OP_N && product.a_scales != nullptr && product.b_scales != nullptr &&
         product.a_mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F &&
         product.b_mode == product.a_mode && product.fast == 0 && whole(a) && whole(b) &&
         d.rows % kEightsUnit == 0 && product.epilogue == CUBLASLT_EPILOGUE_DEFAULT &&
         cublasLtGetVersion() >= kFirstToScaleRows;
}

// Whether the algorithm adds what the product adds, and runs with so few columns of D, which are
// the rows of who stores them by rows.
bool runs(const Algorithm& one, const EmulatedMatmul& product, const EmulatedLayout& c,
          const EmulatedLayout& d) {
  const bool plain = product.epilogue == CUBLASLT_EPILOGUE_DEFAULT && c.stride == d.stride;
  const std::uint64_t least = std::max(one.rows_min, number_said("TUTTI_EMULATION_ROWS_MIN"));
  return (one.plain_only == 0 || plain) && d.columns >= least && d.columns != one.refuses;
}

}  // namespace

namespace {

// op(x) as rows of consecutive numbers along the summed index, so that inner loops are plain.
std::vector<float> gathered(const void* data, const EmulatedLayout& layout, bool along_rows) {
  const std::size_t outer = along_rows ? layout.columns : layout.rows;
  const std::size_t inner = along_rows ? layout.rows : layout.columns;
  std::vector<float> values(outer * inner);
  for (std::size_t o = 0; o < outer; ++o) {
    for (std::size_t i = 0; i < inner; ++i) {
      const std::size_t at = along_rows ? i + o * layout.stride : o + i * layout.stride;
      values[o * inner + i] = widened(data, layout.type, at);
    }
  }
  return values;
}

struct Matmul {
  EmulatedMatmul operation;
  const void *a, *b;
  const float* c;
  float* d;
  EmulatedLayout a_layout, b_layout, c_layout, d_layout;
  float alpha, beta;
  bool backwards;
  std::size_t chains;     // of fused multiply-adds for each output
  std::size_t cut_every;  // columns; 0: sums are not cut

  void run() const {
    const bool a_turned = operation.a == CUBLAS_OP_T;
    const std::size_t depth = a_turned ? a_layout.rows : a_layout.columns;
    const std::size_t m = d_layout.rows;
    const std::size_t n = d_layout.columns;
    // a as [depth][m], b as [n][depth].
    std::vector<float> by_depth = gathered(a, a_layout, !a_turned);
    std::vector<float> right = gathered(b, b_layout, operation.b == CUBLAS_OP_N);
    if (operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32) {
      std::transform(by_depth.begin(), by_depth.end(), by_depth.begin(), rounded_to_tf32);
      std::transform(right.begin(), right.end(), right.begin(), rounded_to_tf32);
    }
    std::vector<float> sums(chains * m);
    // What the chains have, added up; they begin anew.
    const auto take_sums = [&](std::vector<float>& to) {
      for (std::size_t i = 0; i < m; ++i) {
        float sum = sums[i];
        for (std::size_t chain = 1; chain < chains; ++chain) sum += sums[chain * m + i];
        to[i] += sum;
      }
      std::fill(sums.begin(), sums.end(), 0.0F);
    };
    for (std::size_t column = 0; column < n; ++column) {
      const std::size_t cut = cut_every == 0 ? depth : n % cut_every * depth / cut_every;
      std::vector<float> all(m, 0.0F);
      for (std::size_t step = 0; step < depth; ++step) {
        if (step == cut) take_sums(all);
        const std::size_t k = backwards ? depth - 1 - step : step;
        const float by = right[column * depth + k];
        const float* const from = by_depth.data() + k * m;
        float* const chain = sums.data() + step % chains * m;
        for (std::size_t i = 0; i < m; ++i) chain[i] = __builtin_fmaf(from[i], by, chain[i]);
      }
      take_sums(all);
      for (std::size_t i = 0; i < m; ++i) {
        float value = alpha * all[i];
        if (operation.a_scales != nullptr) {
          value = value * operation.a_scales[i] * operation.b_scales[column];
        }
        if (operation.epilogue == CUBLASLT_EPILOGUE_BIAS) value += operation.bias[i];
        if (beta != 0.0F) value += beta * c[i + column * c_layout.stride];
        d[i + column * d_layout.stride] = value;
      }
    }
  }
};

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new EmulatedBlas;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
std::size_t cublasLtGetVersion() {
  const std::uint64_t said = number_said("TUTTI_EMULATION_BLAS");
  return said == 0 ? kVersion : said;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description,
                                        cublasComputeType_t compute, cudaDataType_t scale) {
  const OwnWork own;
  const bool known = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  if (!known || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *description = new EmulatedMatmul{.compute = compute};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete description;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      std::memcpy(&description->a, value, sizeof(description->a));
      break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
      std::memcpy(&description->b, value, sizeof(description->b));
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      std::memcpy(&description->epilogue, value, sizeof(description->epilogue));
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      std::memcpy(&description->bias, value, sizeof(description->bias));
      break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
      std::memcpy(&description->a_scales, value, sizeof(description->a_scales));
      break;
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
      std::memcpy(&description->b_scales, value, sizeof(description->b_scales));
      break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
      std::memcpy(&description->a_mode, value, sizeof(description->a_mode));
      break;
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
      std::memcpy(&description->b_mode, value, sizeof(description->b_mode));
      break;
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
      std::memcpy(&description->fast, value, sizeof(description->fast));
      break;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type,
                                          std::uint64_t rows, std::uint64_t columns,
                                          std::int64_t stride) {
  const OwnWork own;
  if (stride < static_cast<std::int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *layout = new EmulatedLayout{type, rows, columns, static_cast<std::size_t>(stride)};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  const OwnWork own;
  *preference = new EmulatedPreference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
    std::memcpy(&preference->workspace, value, sizeof(preference->workspace));
  if (attribute >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES) {
    std::memcpy(&preference->alignments[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
                value, sizeof(std::uint32_t));
  }
  const bool known = attribute >= CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
                     attribute <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES;
  return known ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* count) {
  const bool bias = description->epilogue == CUBLASLT_EPILOGUE_BIAS;
  const char* const takes_bias = std::getenv("TUTTI_EMULATION_BIAS");
  *count = 0;
  if (bias && takes_bias != nullptr && std::strcmp(takes_bias, "0") == 0)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!takes(*description, *a, *b, *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const std::uint32_t* const promised = preference->alignments;
  const std::uint64_t reads = std::min<std::uint64_t>(row_alignment(*a), promised[0]) |
                              std::min<std::uint64_t>(row_alignment(*b), promised[1]) << 8 |
                              std::min<std::uint64_t>(row_alignment(*d), promised[3]) << 16;
  const auto word = [](auto value) { return static_cast<std::uint64_t>(value); };
  const std::uint64_t asked_for =
      hash_of({word(description->compute), word(description->a), word(description->b),
               word(a->type), word(b->type), a->rows, a->columns, b->rows, b->columns, reads});
  for (Algorithm one : {Algorithm{.splits = kSplitsUnsaid}, Algorithm{.splits = 4},
                        Algorithm{.workspace = kStreamWorkspace},
                        Algorithm{.plain_only = bias ? 0U : 1U, .rows_min = kManyRows},
                        Algorithm{.plain_only = bias ? 0U : 1U, .refuses = kRefusedRows},
                        Algorithm{.plain_only = bias ? 0U : 1U}}) {
    if (*count == asked || one.workspace > preference->workspace) continue;
    one.reads = reads;
    one.order = asked_for % kOrders;
    one.rows_min = std::max(one.rows_min, number_said("TUTTI_EMULATION_OFFERED_ROWS_MIN"));
    results[*count] = {};
    results[*count].algo = one.words();
    results[*count].workspaceSize = one.workspace;
    ++*count;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void* value, std::size_t, std::size_t*) {
  const auto splits = static_cast<std::int32_t>(algorithm_of(*algorithm).splits);
  const std::uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
  if (algorithm_of(*algorithm).splits == kSplitsUnsaid) return CUBLAS_STATUS_INVALID_VALUE;
  switch (attribute) {
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM: std::memcpy(value, &splits, sizeof(splits)); break;
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME:
      std::memcpy(value, &reduction, sizeof(reduction));
      break;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetIds(cublasLtHandle_t, cublasComputeType_t, cudaDataType_t,
                                        cudaDataType_t, cudaDataType_t, cudaDataType_t,
                                        cudaDataType_t, int asked, int* ids, int* count) {
  *count = std::min(asked, 4);
  for (int i = 0; i < *count; ++i) ids[i] = 10 * (i + 1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t, cublasComputeType_t, cudaDataType_t,
                                      cudaDataType_t, cudaDataType_t, cudaDataType_t,
                                      cudaDataType_t, int id, cublasLtMatmulAlgo_t* algorithm) {
  Algorithm one{.mark = kRawMark};
  if (id == 10) one.splits = kSplitsUnsaid;
  if (id == 20) one.workspace = kStreamWorkspace;
  if (id == 30) one.refuses = kRefusedRows;
  *algorithm = one.words();
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCapGetAttribute(const cublasLtMatmulAlgo_t*,
                                                 cublasLtMatmulAlgoCapAttributes_t attribute,
                                                 void* value, std::size_t bytes,
                                                 std::size_t* written) {
  constexpr std::uint32_t kReadsLeast = 2;
  const bool tiles = attribute == CUBLASLT_ALGO_CAP_TILE_IDS;
  std::size_t has = tiles ? sizeof(kTiles) : sizeof(kReadsLeast);
  if (attribute == CUBLASLT_ALGO_CAP_STAGES_IDS) has = 0;
  if (has > bytes) return CUBLAS_STATUS_INVALID_VALUE;
  if (has > 0) std::memcpy(value, tiles ? kTiles : &kReadsLeast, has);
  if (written != nullptr) *written = has;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    const void* value, std::size_t) {
  if (attribute == CUBLASLT_ALGO_CONFIG_STAGES_ID) return CUBLAS_STATUS_SUCCESS;
  if (attribute != CUBLASLT_ALGO_CONFIG_TILE_ID) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (algorithm_of(*algorithm).splits == kSplitsUnsaid) return CUBLAS_STATUS_INVALID_VALUE;
  std::uint32_t tile = 0;
  std::memcpy(&tile, value, sizeof(tile));
  algorithm->data[0] = tile == kTiles[1] ? kAlgorithmMark : kRawMark;  // the other does not run
  return CUBLAS_STATUS_SUCCESS;
}

// As the library: of the addresses nothing is known here.
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  const Algorithm one = algorithm_of(*algorithm);
  if (one.mark != kAlgorithmMark) return CUBLAS_STATUS_INVALID_VALUE;
  result->workspaceSize = one.workspace;
  const bool lies = row_alignment(*a) >= one.reads_of(0) && row_alignment(*b) >= one.reads_of(1) &&
                    row_alignment(*c) >= one.reads_of(2) && row_alignment(*d) >= one.reads_of(2);
  return lies && takes(*description, *a, *b, *d) && runs(one, *description, *c, *d)
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void*,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  const OwnWork own;
  if (algorithm == nullptr) return CUBLAS_STATUS_NOT_SUPPORTED;
  const char* const memory = std::getenv("TUTTI_EMULATION_BLAS_MEMORY");
  if (memory != nullptr && std::strcmp(memory, "0") == 0) return CUBLAS_STATUS_ALLOC_FAILED;
  const Algorithm one = algorithm_of(*algorithm);
  if (one.mark != kAlgorithmMark || one.splits != 1 || one.workspace > workspace_bytes)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!takes(*description, *a_layout, *b_layout, *d_layout) ||
      !runs(one, *description, *c_layout, *d_layout)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (one.reads != 0 && (alignment_at(*a_layout, a) != one.reads_of(0) ||
                         alignment_at(*b_layout, b) != one.reads_of(1) ||
                         alignment_at(*d_layout, d) != one.reads_of(2) ||
                         alignment_at(*c_layout, c) < one.reads_of(2))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (description->epilogue == CUBLASLT_EPILOGUE_BIAS &&
      reinterpret_cast<std::uintptr_t>(description->bias) % kBiasAlignment != 0) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (d_layout->type != CUDA_R_32F || c_layout->type != CUDA_R_32F)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool a_turned = description->a == CUBLAS_OP_T;
  const bool b_turned = description->b == CUBLAS_OP_T;
  const std::size_t m = a_turned ? a_layout->columns : a_layout->rows;
  const std::size_t n = b_turned ? b_layout->rows : b_layout->columns;
  const std::size_t depth = a_turned ? a_layout->rows : a_layout->columns;
  const std::size_t other = b_turned ? b_layout->columns : b_layout->rows;
  if (m != d_layout->rows || n != d_layout->columns || depth != other)
    return CUBLAS_STATUS_INVALID_VALUE;
  const Matmul call{*description,
                    a,
                    b,
                    static_cast<const float*>(c),
                    static_cast<float*>(d),
                    *a_layout,
                    *b_layout,
                    *c_layout,
                    *d_layout,
                    *static_cast<const float*>(alpha),
                    *static_cast<const float*>(beta),
                    one.backwards(),
                    one.chains(),
                    one.workspace == 0 ? 0U : kStreamCut};
  tutti::emulation::enqueue(stream, [call]() -> std::string {
    call.run();
    return {};
  });
  return CUBLAS_STATUS_SUCCESS;
}
