// Tensors of F8_E4M3 and F8_E5M2, with a scale of the whole, of each output, or of each block of
// outputs by inputs. value = scale * code, whatever the scale's tensor is called: `_scale_inv` is
// the inverse of what the weight was multiplied by.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "jobs/models/stored/stored_matrix.h"

namespace tutti::models {

namespace {

// Inputs that share a scale in a row of ours.
constexpr Index kBlock = 128;

class Fp8Matrix final : public StoredMatrix {
 public:
  Fp8Matrix(kernels::WeightFormat format, Index outputs, Index inputs,
            std::span<const std::byte> codes)
      : StoredMatrix(format, outputs, inputs), codes_(codes) {}

  StoredContent content() const override {
    return {fmt::format("{} by {}, {} beside", block_outputs_, block_inputs_, blocks_),
            {codes_, std::as_bytes(std::span(scales_))}};
  }
  void read_rows(Index first, Index count, std::span<std::byte> rows) const override {
    TUTTI_ASSERT(rows.size() == static_cast<std::size_t>(count) * row_bytes());
    std::byte* to = rows.data();
    for (Index output = first; output < first + count; ++output) {
      const float* const scales = scales_.data() + output / block_outputs_ * blocks_;
      const std::byte* const codes = codes_.data() + output * inputs();
      for (Index k = 0; k < inputs(); k += kBlock) {
        const auto depth = static_cast<std::size_t>(std::min(kBlock, inputs() - k));
        std::memcpy(to, scales + k / block_inputs_, 4);
        std::memcpy(to + 4, codes + k, depth);
        to += 4 + depth;
      }
    }
  }

  // A scale for each `block_outputs` by `block_inputs`, `blocks` of them beside each other.
  std::vector<float> scales_;
  Index block_outputs_ = 1;
  Index block_inputs_ = 1;
  Index blocks_ = 1;

 private:
  std::span<const std::byte> codes_;
};

Index blocks_of(Index extent, Index block) { return (extent + block - 1) / block; }

// How the scales' shape cuts the matrix; empty text: it does.
std::string cut(const TensorView& scale, const StoredFormat& format, Fp8Matrix& matrix) {
  const auto& shape = scale.shape;
  const auto rows = shape.empty() ? 1 : static_cast<Index>(shape[0]);
  const auto columns = shape.size() < 2 ? 1 : static_cast<Index>(shape[1]);
  const Index block_outputs = format.block_outputs;
  const Index block_inputs = format.block_inputs;
  matrix.block_inputs_ = std::max<Index>(1, matrix.inputs());
  if (scale.elements() == 1) {
    matrix.block_outputs_ = std::max<Index>(1, matrix.outputs());
    return {};
  }
  if (shape.size() <= 2 && rows == matrix.outputs() && columns == 1) return {};
  if (shape.size() != 2 || rows != blocks_of(matrix.outputs(), block_outputs) ||
      columns != blocks_of(matrix.inputs(), block_inputs)) {
    return fmt::format(
        "has the shape {}: not one scale, one of each of {} outputs, or one of each "
        "block of {} by {}",
        to_string(shape), matrix.outputs(), block_outputs, block_inputs);
  }
  if (block_inputs % kBlock != 0 && columns > 1) {
    return fmt::format("is of blocks of {} inputs; whole ones of {} are supported", block_inputs,
                       kBlock);
  }
  matrix.block_outputs_ = block_outputs;
  matrix.block_inputs_ = block_inputs;
  matrix.blocks_ = columns;
  return {};
}

}  // namespace

Result<std::unique_ptr<StoredMatrix>> open_fp8(const SafetensorsReader& reader,
                                               const StoredFormat& format,
                                               const WantedMatrix& wanted) {
  const std::string_view name = wanted.tensor;
  const TensorView* const codes = reader.find(name);
  if (codes == nullptr ||
      (codes->type != TensorType::f8_e4m3 && codes->type != TensorType::f8_e5m2)) {
    return std::unique_ptr<StoredMatrix>();
  }
  if (wanted.turned) {
    return Error{ErrorCode::unsupported,
                 fmt::format("tensor `{}` is {} with a row an input; a row an output is supported",
                             name, to_string(codes->type))};
  }
  const std::uint64_t shape[] = {static_cast<std::uint64_t>(wanted.outputs),
                                 static_cast<std::uint64_t>(wanted.inputs)};
  if (!std::ranges::equal(codes->shape, shape)) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("tensor `{}` has the shape {}, not {}", name, to_string(codes->shape),
                             to_string(shape))};
  }
  std::string scale_name;
  const TensorView* scale = nullptr;
  for (const std::string_view suffix : {"_scale_inv", "_scale"}) {
    if (scale != nullptr) break;
    scale_name = std::string(name) + std::string(suffix);
    scale = reader.find(scale_name);
  }
  if (scale == nullptr) {
    return Error{ErrorCode::unsupported,
                 fmt::format("tensor `{}` is {} without `{}` or `_scale_inv` beside it", name,
                             to_string(codes->type), scale_name)};
  }
  auto matrix = std::make_unique<Fp8Matrix>(codes->type == TensorType::f8_e4m3
                                                ? kernels::WeightFormat::fp8_e4m3
                                                : kernels::WeightFormat::fp8_e5m2,
                                            wanted.outputs, wanted.inputs, codes->bytes);
  if (const std::string wrong = cut(*scale, format, *matrix); !wrong.empty()) {
    return Error{ErrorCode::unsupported, fmt::format("tensor `{}` {}", scale_name, wrong)};
  }
  matrix->scales_.resize(scale->elements());
  if (auto read = reader.read(scale_name, scale->shape, matrix->scales_); !read) {
    return read.error();
  }
  if (!std::ranges::all_of(matrix->scales_, [](float s) { return std::isfinite(s); })) {
    return Error{ErrorCode::corrupt,
                 fmt::format("tensor `{}` holds a scale that is not finite", scale_name)};
  }
  return std::unique_ptr<StoredMatrix>(std::move(matrix));
}

}  // namespace tutti::models
