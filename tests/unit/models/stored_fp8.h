// Matrices of a checkpoint in fp8, by what the layout's description says.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/unit/models/stored_checkpoint.h"

namespace tutti::test {

// fp8: how the scales of a matrix are cut, and what their tensor is called.
struct Scales {
  std::uint64_t block_outputs = 0;  // 0: all
  std::uint64_t block_inputs = 0;
  std::string_view suffix = "_scale";
  models::TensorType type = models::TensorType::f32;
  std::vector<std::uint64_t> (*shape)(std::uint64_t rows, std::uint64_t columns) = nullptr;
};

inline double e4m3(int code) {
  const int exponent = code >> 3 & 15;
  const double part = (code & 7) / 8.0;
  const double size = exponent == 0 ? std::ldexp(part, -6) : std::ldexp(1.0 + part, exponent - 7);
  return code >= 128 ? -size : size;
}
inline double e5m2(int code) {
  const int exponent = code >> 2 & 31;
  const double part = (code & 3) / 4.0;
  const double size = exponent == 0 ? std::ldexp(part, -14) : std::ldexp(1.0 + part, exponent - 15);
  return code >= 128 ? -size : size;
}

inline MatrixWriter fp8_writer(models::TensorType codes_type, Scales scales) {
  return [=](const std::string& name, std::uint64_t outputs, std::uint64_t inputs, Rng& rng) {
    const auto height = scales.block_outputs == 0 ? outputs : scales.block_outputs;
    const auto width = scales.block_inputs == 0 ? inputs : scales.block_inputs;
    const auto rows = (outputs + height - 1) / height;
    const auto columns = (inputs + width - 1) / width;
    StoredExample made;
    made.tensors.push_back({{name, codes_type, {outputs, inputs}}, {}});
    made.tensors.push_back(
        {{name + std::string(scales.suffix), scales.type, scales.shape(rows, columns)}, {}});
    const bool e4 = codes_type == models::TensorType::f8_e4m3;
    std::vector<float> factors;
    for (std::uint64_t i = 0; i < rows * columns; ++i) {
      // Few bits, so that each type of scales holds it.
      const float size = e4 ? 0.001F : 0.00001F;
      const auto bits = std::bit_cast<std::uint32_t>(size * static_cast<float>(1 + rng.below(40)));
      factors.push_back(std::bit_cast<float>(bits & 0xffff0000U));
      if (scales.type == models::TensorType::bf16) {
        put(made.tensors[1].bytes, static_cast<std::uint16_t>(bits >> 16));
      } else {
        put(made.tensors[1].bytes, factors.back());
      }
    }
    for (std::uint64_t o = 0; o < outputs; ++o) {
      for (std::uint64_t k = 0; k < inputs; ++k) {
        int code = static_cast<int>(rng.below(256));
        if (e4 && (code & 127) == 127) code &= 0x80;
        if (!e4 && (code & 127) >= 0x7c) code &= 0x83;
        put(made.tensors[0].bytes, static_cast<std::uint8_t>(code));
        const auto number = static_cast<float>(e4 ? e4m3(code) : e5m2(code));
        made.values.push_back(factors[o / height * columns + k / width] * number);
      }
    }
    return made;
  };
}

inline std::vector<std::uint64_t> by_both(std::uint64_t rows, std::uint64_t columns) {
  return {rows, columns};
}
inline const Scales kBlocks{128, 128, "_scale_inv", models::TensorType::f32, by_both};
inline constexpr const char* kFp8Config =
    R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]})";

}  // namespace tutti::test
