// Which algorithm of the library each product takes, chosen once and kept in a file.
//
// The library's heuristic may answer otherwise tomorrow: what a machine has chosen for a product is
// therefore stored, and taken back by every later process on the same kind of device and version of
// the library. Whoever chooses holds the file's lock, so that ranks that start together choose
// alike.
//
//   0 1 4096 1024 16 16 8 7475 1 0 0 0 0 0 0
//   form, inputs, N, K, alignments of left, right and output, the algorithm's words
//
// What was used is part of the numerics profile (used(), by its hash): ranks of one group must have
// used the same.
//
// Ownership: none. Threads: one; processes may share the file. Errors: those of choosing. A file
// that cannot be read or written is said in the log, and choices are kept in memory then.
#pragma once

#include <cublasLt.h>

#include <compare>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <tuple>

#include "kernels/tensor/device.h"
#include "kernels/tensor/matrix.h"
#include "protocol/base/result.h"

namespace tutti::kernels::cuda {

// The inputs as the library reads them: fp32; rounded to bf16 or fp16; fp32 that it rounds to TF32
// itself; or codes of fp8 with scales of rows. Sums and output are fp32.
enum class ProductInputs { fp32, bf16, fp16, tf32, fp8 };
inline constexpr int kProductInputs = 5;

// What both the address and the distance of rows are multiples of, in bytes: all that an algorithm
// needs to know of where a matrix lies. How far apart rows are beyond that changes no bit of a
// product, and so chooses none (decision 0070).
struct ProductAlignments {
  std::uint32_t left = 16, right = 16, output = 16;  // 2, 4, 8 or 16

  auto operator<=>(const ProductAlignments&) const = default;
};

class ProductChoices {
 public:
  // Form, inputs, the weight's rows and columns.
  using Key = std::tuple<ProductForm, ProductInputs, Index, Index, ProductAlignments>;
  using Choose = std::function<Result<cublasLtMatmulAlgo_t>()>;

  // `file` empty: kept in memory only.
  explicit ProductChoices(std::filesystem::path file = {});

  // What is used for the key: as it was, as the file has it, or chosen now and stored.
  Result<cublasLtMatmulAlgo_t> take(const Key& key, const Choose& choose);

  // Takes the choices of a table that another's used() gave, before its own and the file's; what
  // was used so far is forgotten. Nothing of it is stored. Errors: corrupt.
  Result<> adopt(const std::string& table);

  // One line a choice that was used, in the order of their keys.
  std::string used() const { return text_of(used_); }
  // Eight digits of the hash of that; empty: none was used.
  const std::string& hash() const { return hash_; }

 private:
  using Table = std::map<Key, cublasLtMatmulAlgo_t>;

  static std::string text_of(const Table& table);
  cublasLtMatmulAlgo_t use(const Table::value_type& choice);
  void read_stored();
  void write_stored() const;

  std::filesystem::path file_;
  Table used_;
  std::string hash_;  // of used()
  Table stored_;      // as the file was read last
  Table adopted_;
};

}  // namespace tutti::kernels::cuda
