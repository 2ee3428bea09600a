#include "jobs/models/serving_weights.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>

#include "jobs/models/safetensors.h"
#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/embedding.h"
#include "kernels/tensor/device.h"

namespace tutti::models {

namespace {

using kernels::WeightFormat;

struct FormatName {
  std::string_view name;
  std::optional<WeightFormat> format;  // none: fp32
};
constexpr FormatName kFormats[] = {
    {"fp32", std::nullopt},
    {"bf16", WeightFormat::bf16},
    {"int8", WeightFormat::int8_channel},
    {"q8_0", WeightFormat::q8_0},
    {"int4", WeightFormat::int4_group},
    {"q4_0", WeightFormat::q4_0},
    {"q5_0", WeightFormat::q5_0},
    {"q4_k", WeightFormat::q4_k},
    {"q5_k", WeightFormat::q5_k},
    {"q6_k", WeightFormat::q6_k},
    {"nf4", WeightFormat::nf4},
};

const FormatName* find_format(std::string_view name) {
  const auto* const found = std::ranges::find(kFormats, name, &FormatName::name);
  return found == std::end(kFormats) ? nullptr : found;
}

// A layer's matrices: where their shapes and their images are.
struct LayerMatrix {
  Role role;
  kernels::BasicMatrix<const float> LayerParameters<const float>::*shape;
  WeightImage LayerImages::*image;
};
using Shapes = LayerParameters<const float>;
constexpr LayerMatrix kMatrices[] = {
    {Role::query, &Shapes::query, &LayerImages::query},
    {Role::key, &Shapes::key, &LayerImages::key},
    {Role::value, &Shapes::value, &LayerImages::value},
    {Role::output, &Shapes::output, &LayerImages::output},
    {Role::gate, &Shapes::gate, &LayerImages::gate},
    {Role::up, &Shapes::up, &LayerImages::up},
    {Role::down, &Shapes::down, &LayerImages::down},
};

Index size_of(const Parameter& parameter) { return static_cast<Index>(parameter.elements); }

std::uint64_t bytes_of(const WeightImage& image) {
  return image.fp32.bytes() + image.quantised.bytes();
}

}  // namespace

std::span<const std::string_view> serving_formats() {
  static const auto kNames = [] {
    std::array<std::string_view, std::size(kFormats)> names;
    std::ranges::transform(kFormats, names.begin(), &FormatName::name);
    return names;
  }();
  return kNames;
}

namespace {

Error unknown_format(std::string_view format) {
  return {ErrorCode::invalid_argument, fmt::format("\"{}\" is no format of weights; there are {}",
                                                   format, fmt::join(serving_formats(), ", "))};
}

}  // namespace

struct ServingWeights::Maker {
  const kernels::OpContext& ctx;
  const Decoder& decoder;
  const FormatName& format;
  ServingWeights made;
  Index norms_used = 0;

  Result<WeightImage> image(const Parameter& parameter, const float* values) const {
    const ConstMatrix weight(values, static_cast<Index>(parameter.shape[0]),
                             static_cast<Index>(parameter.shape[1]));
    WeightImage image;
    if (!format.format) {
      auto packed = kernels::pack_weight(ctx, weight);
      if (!packed) return packed.error();
      image.fp32 = *std::move(packed);
      return image;
    }
    auto quantised = kernels::quantise_weight(ctx, *format.format, weight);
    if (!quantised) {
      return Error(quantised.error())
          .with_context(fmt::format("tensor `{}` as {}", parameter.name, format.name));
    }
    image.quantised = *std::move(quantised);
    return image;
  }

  Result<> put(void* to, const void* from, std::size_t bytes) const {
    if (ctx.device != nullptr) return ctx.device->upload(to, from, bytes);
    std::memcpy(to, from, bytes);
    return {};
  }

  Result<> norm(const Parameter& parameter, const float* values, const float*& place) {
    float* const to = made.norms_.data() + norms_used;
    norms_used += size_of(parameter);
    place = to;
    return put(to, values, parameter.elements * sizeof(float));
  }

  Result<> table(const Parameter& parameter, std::span<const float> values) {
    made.table_rows_ = static_cast<Index>(parameter.shape[0]);
    // A device's image of the head is the table itself.
    if (!format.format && ctx.device != nullptr && decoder.description().tied) return {};
    if (!format.format) {
      made.table_ = kernels::FloatBuffer(static_cast<Index>(values.size()), ctx.device);
      return put(made.table_.data(), values.data(), values.size_bytes());
    }
    std::vector<kernels::Bf16> rounded(values.size());
    must(kernels::to_bf16({ctx.pool}, values, rounded));
    const std::size_t bytes = rounded.size() * sizeof(kernels::Bf16);
    made.bf16_table_ = kernels::AlignedBytes(bytes, ctx.device);
    return put(made.bf16_table_.data(), rounded.data(), bytes);
  }

  Result<> take(const Parameter& parameter, std::span<const float> values) {
    if (parameter.role == Role::embedding) {
      if (auto there = table(parameter, values); !there) return there;
    }
    if (parameter.role == Role::head ||
        (parameter.role == Role::embedding && decoder.description().tied)) {
      auto head = image(parameter, values.data());
      if (!head) return head.error();
      made.head_ = *std::move(head);
    }
    LayerParameters<const float>& layer = made.parameters_[parameter.layer];
    switch (parameter.role) {
      case Role::final_norm: return norm(parameter, values.data(), made.final_norm_);
      case Role::attention_norm: return norm(parameter, values.data(), layer.attention_norm);
      case Role::feed_forward_norm: return norm(parameter, values.data(), layer.feed_forward_norm);
      default: break;
    }
    const auto* const matrix = std::ranges::find(kMatrices, parameter.role, &LayerMatrix::role);
    if (matrix == std::end(kMatrices)) return {};
    auto made_image = image(parameter, values.data());
    if (!made_image) return made_image.error();
    layer.*matrix->shape = ConstMatrix(nullptr, static_cast<Index>(parameter.shape[0]),
                                       static_cast<Index>(parameter.shape[1]));
    made.images_[parameter.layer].*matrix->image = *std::move(made_image);
    return {};
  }
};

Result<ServingWeights> ServingWeights::make(const kernels::OpContext& ctx, const Decoder& decoder,
                                            std::string_view format, const Source& source) {
  const FormatName* const found = find_format(format);
  if (found == nullptr) return unknown_format(format);
  Maker maker{.ctx = ctx, .decoder = decoder, .format = *found, .made = {}};
  static std::atomic<std::uint64_t> last_number{0};
  maker.made.number_ = ++last_number;
  maker.made.parameters_.resize(decoder.description().layers);
  maker.made.images_.resize(decoder.description().layers);
  Index norms = 0;
  Index largest = 0;
  for (const Parameter& parameter : decoder.layout().parameters()) {
    if (parameter.shape.size() == 1) norms += size_of(parameter);
    largest = std::max(largest, size_of(parameter));
  }
  const kernels::FloatBuffer scratch(largest);
  try {
    maker.made.norms_ = kernels::FloatBuffer(norms, ctx.device);
    for (const Parameter& parameter : decoder.layout().parameters()) {
      const std::span<float> values = scratch.span().first(parameter.elements);
      if (auto read = source(parameter, values); !read) return read.error();
      if (auto taken = maker.take(parameter, values); !taken) return taken.error();
    }
  } catch (const kernels::AllocationFailure& failure) {
    return Error(failure.error()).with_context("weights for serving");
  }
  return std::move(maker.made);
}

Result<ServingWeights> ServingWeights::from(const kernels::OpContext& ctx, const Decoder& decoder,
                                            std::string_view format, std::span<const float> arena) {
  TUTTI_ASSERT(arena.size() == decoder.layout().elements());
  return make(
      ctx, decoder, format, [&](const Parameter& parameter, std::span<float> values) -> Result<> {
        std::ranges::copy(arena.subspan(parameter.offset, parameter.elements), values.begin());
        return {};
      });
}

Result<ServingWeights> ServingWeights::load(const kernels::OpContext& ctx, const Decoder& decoder,
                                            std::string_view format,
                                            const std::filesystem::path& folder) {
  auto reader = SafetensorsReader::open_folder(folder);
  if (!reader) return reader.error();
  return make(ctx, decoder, format, [&](const Parameter& parameter, std::span<float> values) {
    return reader->read(parameter.name, parameter.shape, values);
  });
}

Result<std::uint64_t> ServingWeights::device_bytes(const Decoder& decoder,
                                                   std::string_view format) {
  const FormatName* const found = find_format(format);
  if (found == nullptr) return unknown_format(format);
  const bool tied = decoder.description().tied;
  const auto image = [&](const Parameter& parameter) {
    if (!found->format) return parameter.elements * sizeof(float);
    return std::uint64_t{kernels::QuantisedWeight::image_bytes(
        *found->format, static_cast<Index>(parameter.shape[0]),
        static_cast<Index>(parameter.shape[1]))};
  };
  std::uint64_t bytes = 0;
  for (const Parameter& parameter : decoder.layout().parameters()) {
    if (parameter.shape.size() == 1) {
      bytes += parameter.elements * sizeof(float);
    } else if (parameter.role != Role::embedding) {
      bytes += image(parameter);
    } else {
      // The table; and the head's image, which is the table where both are fp32.
      if (tied) bytes += image(parameter);
      if (found->format) {
        bytes += (parameter.elements * sizeof(kernels::Bf16) + 63) / 64 * 64;
      } else if (!tied) {
        bytes += parameter.elements * sizeof(float);
      }
    }
  }
  return bytes;
}

std::uint64_t ServingWeights::bytes() const {
  std::uint64_t bytes = bytes_of(head_) + bf16_table_.size() +
                        static_cast<std::uint64_t>(norms_.size() + table_.size()) * sizeof(float);
  for (const LayerImages& layer : images_) {
    for (const LayerMatrix& matrix : kMatrices) bytes += bytes_of(layer.*matrix.image);
  }
  return bytes;
}

void ServingWeights::look_up(const kernels::OpContext& ctx, std::span<const std::int32_t> tokens,
                             Matrix out) const {
  const float* const table = table_.size() > 0 ? table_.data() : head_.fp32.image();
  must(kernels::embedding_forward(
      ctx, {.table = ConstMatrix(table, table_rows_, out.columns),
            .bf16 = reinterpret_cast<const kernels::Bf16*>(bf16_table_.data()),
            .tokens = tokens,
            .output = out}));
}

}  // namespace tutti::models
