// Products by cuBLASLt, one algorithm per (form, N, K): chosen once, for every number of rows,
// without split-K.
//
// The library may choose another algorithm for another M, and algorithms differ in bits. So the
// first product of a form and weight shape asks for an algorithm for kRowsAsked rows that reduces
// within one thread block, and all later ones use it whatever their M (the row rule). The choices
// are part of the numerics profile: `choices()` is what to store, `Products::open` takes it back,
// and profile() names the library's version.
//
// What a library product cannot do is continue a chain: `ChainStart::output` adds the finished sum
// to what is there. So on a GPU the micro-batch belongs to the profile (DESIGN numerics).
//
// Ownership: owns handle and workspace. Threads: one.
// Errors: unsupported (no such algorithm; no usable GPU), unavailable (the library or the device
// failed).
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "kernels/cuda/runtime.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/device.h"

namespace tutti::kernels::cuda {

// The library and its version, as it stands in a numerics profile.
std::string product_library();

class Products {
 public:
  static constexpr Index kRowsAsked = 4096;
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

  // `choices`: as an earlier run gave them; empty: none yet.
  static Result<std::unique_ptr<Products>> open(const std::string& choices = {});
  ~Products();

  const std::string& profile() const { return profile_; }
  // One line a choice: form, inputs, N, K, alignment, algorithm in hexadecimal digits.
  std::string choices() const;

  // The inputs as the library reads them: fp32, or rounded to bf16; sums and output are fp32.
  enum class Inputs { fp32, bf16 };
  struct Operands {
    Inputs type = Inputs::fp32;
    const void* left = nullptr;
    const void* right = nullptr;
    Index left_stride = 0;  // in numbers
    Index right_stride = 0;
  };

  // `args` gives shapes, output, start, bias and residual; its inputs are used where `operands` is
  // null. A residual together with ChainStart::output is not taken: one of them is what beta
  // multiplies.
  Result<> run(cudaStream_t stream, ProductForm form, const Product& args,
               const Operands* operands = nullptr);

 private:
  Products() = default;
  // Form, inputs, the weight's rows and columns, and what the addresses are multiples of.
  using Key = std::tuple<ProductForm, Inputs, Index, Index, std::uint32_t>;
  struct Call;

  Result<cublasLtMatmulAlgo_t> algorithm(const Key& key);
  Result<> read_choices(const std::string& choices);

  cublasLtHandle_t handle_ = nullptr;
  DeviceMemory workspace_;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms_;
  std::string profile_;
};

}  // namespace tutti::kernels::cuda
