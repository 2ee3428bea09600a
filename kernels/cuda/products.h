// Products by cuBLASLt, one algorithm per (form, N, K): chosen once, for every number of rows,
// without split-K.
//
// An algorithm is asked for by layouts whose rows lie as those of the products that it is for: in
// bf16 and fp16 operands' rows begin at multiples of 16 bytes whatever their columns (convert.cu).
//
// The library may choose another algorithm for another M, and algorithms differ in bits. So the
// first product of a form and weight shape asks for an algorithm for kRowsAsked rows that reduces
// within one thread block and runs with few rows too (all are looked through for such a one), and
// later ones use it whatever their M (the row rule): no split-K, and no workspace, which kernels
// that share sums among blocks need. The choices are part of the numerics profile and kept in a
// file (product_choices.h).
//
// What a library product cannot do is continue a chain: `ChainStart::output` adds the finished sum
// to what is there. So on a GPU the micro-batch belongs to the profile (DESIGN numerics).
//
// Ownership: owns the handle. Threads: one.
// Errors: unsupported (no such algorithm; no usable GPU), unavailable (the library or the device
// failed).
#pragma once

#include <cublasLt.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "kernels/cuda/product_choices.h"
#include "kernels/cuda/runtime.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/device.h"

namespace tutti::kernels::cuda {

// The library and its version, as it stands in a numerics profile.
std::string product_library();
// Whether this version multiplies codes of fp8 with a scale for each row of both operands.
bool products_scale_rows();

class Products {
 public:
  static constexpr Index kRowsAsked = 4096;

  static Result<std::unique_ptr<Products>> open(ProductChoices choices = ProductChoices());
  ~Products();

  const ProductChoices& choices() const { return choices_; }
  Result<> adopt(const std::string& table) { return choices_.adopt(table); }

  using Inputs = ProductInputs;
  struct Operands {
    Inputs type = Inputs::fp32;
    const void* left = nullptr;  // null: the product's own, as `type` reads fp32 numbers
    const void* right = nullptr;
    Index left_stride = 0;  // in numbers
    Index right_stride = 0;
    // Of codes, which the form nt alone reads: `args.right` gives the shape of the codes then.
    const float* left_scales = nullptr;
    const float* right_scales = nullptr;
  };

  // `args` gives shapes, output, start, bias and residual; its inputs are used where `operands` is
  // null. At most one of ChainStart::output, a bias and a residual is taken: beta multiplies one
  // matrix, and whether the library adds that before a bias or after it, it does not say.
  //
  // The algorithm is that of the key whatever is added, so it may not take a bias or a residual;
  // then it is not added, and the caller does it, to the rounded sum. That is what the library does
  // within, so the bits are the same. So is a bias that is not aligned as the library reads it,
  // which no attribute tells it, and a residual that lies worse than the output.
  enum class Ends { added, left_out };
  Result<Ends> run(cudaStream_t stream, ProductForm form, const Product& args,
                   const Operands* operands = nullptr);

 private:
  explicit Products(ProductChoices choices) : choices_(std::move(choices)) {}
  using Key = ProductChoices::Key;
  struct Wanted;
  struct Call;
  struct Offer {
    cublasLtMatmulAlgo_t algorithm;
    bool for_few_rows;
    int rank, of;  // in the heuristic's list
  };

  Result<cublasLtMatmulAlgo_t> choose(const Key& key) const;
  static Wanted shaped(const Key& key, Index m, const float* bias);
  Result<bool> runs_with_few_rows(const Key& key, const float* bias,
                                  const cublasLtMatmulAlgo_t& algorithm) const;
  // The first algorithm of the heuristic that keeps the row rule and runs with few rows too, else
  // the first that keeps the row rule; none: it offers no such one.
  Result<std::optional<Offer>> ask(const Key& key, const float* bias) const;

  cublasLtHandle_t handle_ = nullptr;
  ProductChoices choices_;
};

}  // namespace tutti::kernels::cuda
