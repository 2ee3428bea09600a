// How a checkpoint keeps its matrices: the `quantization_config` of a config.json.
//
//   quant_method        what a matrix is                                           read here
//   fp8, fbgemm_fp8     F8_E4M3 or F8_E5M2 with `_scale`, `_scale_inv` beside it   all scales
//   compressed-tensors  the same, where `format` is float-quantized                all strategies
//   gptq                codes packed by inputs (stored/packed.cc)                  4 and 8 bits
//   awq                 codes packed by outputs, version gemm                      4 bits
//
// What is not quantised (a head, modules_to_not_convert) has its plain tensor, and needs no word
// here. How activations are to be rounded is not read: ours stay in fp32.
//
// Threads: plain data. Errors: unsupported (a method, a variant: named, with what can be done);
// invalid_argument (a key of a wrong kind).
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <filesystem>
#include <string>

#include "kernels/ops/weights/weight_format.h"
#include "protocol/base/result.h"

namespace tutti::models {

struct StoredFormat {
  enum class Kind : std::uint8_t { plain, fp8, gptq, awq };
  Kind kind = Kind::plain;
  // fp8 with a scale for so many outputs by so many inputs; other scales are told by their shapes.
  std::uint32_t block_outputs = 128;
  std::uint32_t block_inputs = 128;
  // Packed codes.
  std::uint32_t bits = 4;
  std::uint32_t group = 0;      // inputs that have one scale; 0: all
  bool act_order = false;       // whether they may lie anywhere
  bool zeros_less_one = false;  // as files have them

  bool operator==(const StoredFormat&) const = default;
};

// Of a config.json; plain where it says nothing.
Result<StoredFormat> read_stored_format(const boost::json::object& config);
// Of a model directory's; plain where it has none.
Result<StoredFormat> read_stored_format(const std::filesystem::path& folder);
// For people: "fp8", "awq of 4 bits".
std::string to_string(const StoredFormat& format);
// The widest image that a matrix of it may have; not of plain.
kernels::WeightFormat format_of(const StoredFormat& format);

}  // namespace tutti::models
