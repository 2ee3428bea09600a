#include "jobs/models/serving_weights.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "jobs/models/stored/image_key.h"
#include "jobs/models/stored/stored_parameters.h"
#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/grid.h"
#include "kernels/tensor/device.h"
#include "protocol/base/log.h"

namespace tutti::models {

namespace {

using kernels::WeightFormat;

struct FormatName {
  std::string_view name;
  std::optional<WeightFormat> format;  // none: fp32
};
// As the checkpoint keeps them (stored/stored_matrix.h); what it keeps plain, as fp32.
constexpr std::string_view kAuto = "auto";
constexpr FormatName kFormats[] = {
    {kAuto, std::nullopt},
    {"fp32", std::nullopt},
    {"bf16", WeightFormat::bf16},
    {"int8", WeightFormat::int8_channel},
    {"q8_0", WeightFormat::q8_0},
    {"fp8_e4m3", WeightFormat::fp8_e4m3},
    {"fp8_e5m2", WeightFormat::fp8_e5m2},
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
  LinearParameters<const float> LayerParameters<const float>::*shape;
  WeightImage LayerImages::*image;
};
using Shapes = LayerParameters<const float>;
// Query, key and value first: the order of their bands where they are one.
constexpr LayerMatrix kMatrices[] = {
    {Role::query, &Shapes::query, &LayerImages::query},
    {Role::key, &Shapes::key, &LayerImages::key},
    {Role::value, &Shapes::value, &LayerImages::value},
    {Role::output, &Shapes::output, &LayerImages::output},
    {Role::gate, &Shapes::gate, &LayerImages::gate},
    {Role::up, &Shapes::up, &LayerImages::up},
    {Role::down, &Shapes::down, &LayerImages::down},
};

// Kept in fp32 in every format, and not as images.
bool is_plain(const Parameter& parameter) {
  return parameter.shape.size() == 1 || parameter.role == Role::position_embedding;
}

Index size_of(const Parameter& parameter) { return static_cast<Index>(parameter.elements); }

Index largest_of(const Decoder& decoder) {
  Index largest = 0;
  for (const Parameter& parameter : decoder.layout().parameters()) {
    largest = std::max(largest, size_of(parameter));
  }
  return largest;
}

// Rows of codes that one thread reads: files hold those of neighbours side by side.
constexpr Index kRowsTogether = 16;

// Outputs of a matrix, some of them.
struct Stretch {
  Index first;
  Index count;
};

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

// Takes parameters in the order of the layout. The pieces of what is made, in that order, are what
// a cache keeps: what is plain, then the table and images.
struct ServingWeights::Maker {
  // A matrix whose codes stay; without rows where its image is kept.
  struct Codes {
    CodesShape shape;
    std::unique_ptr<StoredMatrix> rows;
  };

  const kernels::OpContext& ctx;
  const Decoder& decoder;
  const FormatName& format;
  const StoredParameters* codes = nullptr;  // a folder whose codes are kept as they are
  const MappedImages* kept = nullptr;       // pieces that are viewed in place of being made
  const ImageKey* key = nullptr;            // theirs
  ServingWeights made;
  Index plain_used = 0;
  std::vector<float> turned;  // the last matrix that lay a row an input
  std::vector<std::span<const std::byte>> pieces;

  // The next of the kept pieces.
  Result<const std::byte*> next(std::size_t bytes) {
    const auto all = kept->pieces();
    if (pieces.size() >= all.size() || all[pieces.size()].size() != bytes) {
      return Error{ErrorCode::corrupt, "images of another model"};
    }
    pieces.push_back(all[pieces.size()]);
    return pieces.back().data();
  }

  Result<> begin() {
    static std::atomic<std::uint64_t> last_number{0};
    made.number_ = ++last_number;
    made.parameters_.resize(decoder.description().layers);
    made.images_.resize(decoder.description().layers);
    Index plain = 0;
    for (const Parameter& parameter : decoder.layout().parameters()) {
      if (is_plain(parameter)) plain += size_of(parameter);
    }
    made.plain_ = kernels::FloatBuffer(plain, ctx.device);
    const auto bytes = std::as_bytes(made.plain_.span());
    if (kept == nullptr) {
      pieces.push_back(bytes);
      return {};
    }
    const auto piece = next(bytes.size());
    if (!piece) return piece.error();
    std::memcpy(made.plain_.data(), *piece, bytes.size());
    return {};
  }

  // None: fp32.
  Result<WeightImage> kept_image(std::optional<WeightFormat> of, Index outputs, Index inputs) {
    WeightImage image;
    const auto piece = next(of ? kernels::QuantisedWeight::image_bytes(*of, outputs, inputs)
                               : kernels::PackedWeight::image_bytes(outputs, inputs));
    if (!piece) return piece.error();
    if (of) {
      image.quantised = kernels::QuantisedWeight::view(*of, outputs, inputs, *piece);
    } else {
      image.fp32 = kernels::PackedWeight::view(outputs, inputs, *piece);
    }
    return image;
  }

  // Of a matrix that comes in fp32. Beside codes, bf16 stays what it is: it has the bits of fp32.
  std::optional<WeightFormat> format_of(const Parameter& parameter) const {
    if (codes == nullptr || !codes->is_bf16(parameter)) return format.format;
    return WeightFormat::bf16;
  }

  // Of a matrix [outputs, inputs] of the parameter.
  Result<WeightImage> image(const Parameter& parameter, ConstMatrix weight) {
    const std::optional<WeightFormat> own = format_of(parameter);
    if (kept != nullptr) return kept_image(own, weight.rows, weight.columns);
    WeightImage image;
    if (!own) {
      auto packed = kernels::pack_weight(ctx, weight);
      if (!packed) return packed.error();
      image.fp32 = *std::move(packed);
      pieces.emplace_back(reinterpret_cast<const std::byte*>(image.fp32.image()),
                          image.fp32.bytes());
      return image;
    }
    auto quantised = kernels::quantise_weight(ctx, *own, weight);
    if (!quantised) {
      return Error(quantised.error())
          .with_context(fmt::format("tensor `{}` as {}", parameter.name, format.name));
    }
    image.quantised = *std::move(quantised);
    pieces.emplace_back(image.quantised.image(), image.quantised.bytes());
    return image;
  }

  Result<> put(void* to, const void* from, std::size_t bytes) const {
    if (ctx.device != nullptr) return ctx.device->upload(to, from, bytes);
    std::memcpy(to, from, bytes);
    return {};
  }

  Result<> plain(const Parameter& parameter, const float* values) {
    float* const to = made.plain_.data() + plain_used;
    plain_used += size_of(parameter);
    place(parameter, to);
    return kept != nullptr ? Result<>() : put(to, values, parameter.elements * sizeof(float));
  }

  // Where the passes look for it.
  void place(const Parameter& parameter, const float* at) {
    LayerParameters<const float>& layer = made.parameters_[parameter.layer];
    switch (parameter.role) {
      case Role::final_norm: made.final_norm_.weight = at; return;
      case Role::final_norm_bias: made.final_norm_.bias = at; return;
      case Role::attention_norm: layer.attention_norm.weight = at; return;
      case Role::attention_norm_bias: layer.attention_norm.bias = at; return;
      case Role::feed_forward_norm: layer.feed_forward_norm.weight = at; return;
      case Role::feed_forward_norm_bias: layer.feed_forward_norm.bias = at; return;
      case Role::output_bias: layer.output.bias = at; return;
      case Role::up_bias: layer.up.bias = at; return;
      case Role::down_bias: layer.down.bias = at; return;
      case Role::projections_bias: {
        const Index third = size_of(parameter) / 3;
        layer.query.bias = at;
        layer.key.bias = at + third;
        layer.value.bias = at + 2 * third;
        return;
      }
      case Role::position_embedding:
        made.positions_ = ConstMatrix(at, static_cast<Index>(parameter.shape[0]),
                                      static_cast<Index>(parameter.shape[1]));
        return;
      default: TUTTI_ASSERT(false);
    }
  }

  // A layer's matrix as [outputs, inputs]; `values` are not read where images are kept.
  ConstMatrix by_outputs(const Parameter& parameter, const float* values) {
    const auto rows = static_cast<Index>(parameter.shape[0]);
    const auto columns = static_cast<Index>(parameter.shape[1]);
    if (decoder.layout().order() == WeightOrder::outputs) return {values, rows, columns};
    if (kept != nullptr) return {nullptr, columns, rows};
    turned.resize(parameter.elements);
    for (Index row = 0; row < rows; ++row) {
      for (Index column = 0; column < columns; ++column) {
        turned[static_cast<std::size_t>(column * rows + row)] = values[row * columns + column];
      }
    }
    return {turned.data(), columns, rows};
  }

  // Of some of a stored matrix's outputs.
  Result<WeightImage> image_of_codes(const Parameter& parameter, const Codes& matrix,
                                     const Stretch& outputs) {
    if (kept != nullptr) {
      return kept_image(matrix.shape.format, outputs.count, matrix.shape.inputs);
    }
    const std::size_t row = matrix.rows->row_bytes();
    std::vector<std::byte> rows(row * static_cast<std::size_t>(outputs.count));
    ctx.pool->parallel_for(outputs.count, kRowsTogether, [&](int, Index begin, Index end) {
      matrix.rows->read_rows(outputs.first + begin, end - begin,
                             std::span(rows).subspan(static_cast<std::size_t>(begin) * row,
                                                     static_cast<std::size_t>(end - begin) * row));
    });
    auto packed = kernels::pack_rows(ctx, matrix.shape.format, rows, outputs.count);
    if (!packed) {
      return Error(packed.error()).with_context(fmt::format("tensor `{}`", parameter.name));
    }
    WeightImage image;
    image.quantised = *std::move(packed);
    pieces.emplace_back(image.quantised.image(), image.quantised.bytes());
    return image;
  }

  Result<> put_matrix(const Parameter& parameter, const LayerMatrix& which,
                      Result<WeightImage> made_image, ConstMatrix weight) {
    if (!made_image) return made_image.error();
    const ConstMatrix shape(nullptr, weight.rows, weight.columns);
    (made.parameters_[parameter.layer].*which.shape).weight = shape;
    made.images_[parameter.layer].*which.image = *std::move(made_image);
    return {};
  }
  Result<> layer_matrix(const Parameter& parameter, const LayerMatrix& which, ConstMatrix weight) {
    return put_matrix(parameter, which, image(parameter, weight), weight);
  }

  // A matrix of a layer, or the head.
  Result<> take_codes(const Parameter& parameter, const Codes& matrix) {
    if (parameter.role == Role::head) {
      auto head = image_of_codes(parameter, matrix, {0, matrix.shape.outputs});
      if (!head) return head.error();
      made.head_ = *std::move(head);
      return {};
    }
    const auto* which = std::ranges::find(kMatrices, parameter.role, &LayerMatrix::role);
    Index pieces_of_it = 1;
    if (parameter.role == Role::projections) {
      which = kMatrices;
      pieces_of_it = 3;
    }
    TUTTI_ASSERT(which != std::end(kMatrices));
    const Index outputs = matrix.shape.outputs / pieces_of_it;
    for (Index i = 0; i < pieces_of_it; ++i) {
      auto done =
          put_matrix(parameter, which[i], image_of_codes(parameter, matrix, {i * outputs, outputs}),
                     {nullptr, outputs, matrix.shape.inputs});
      if (!done) return done;
    }
    return {};
  }

  // The parameter at `index`, where its codes stay; whether they do.
  Result<bool> take_stored(std::size_t index, const Parameter& parameter) {
    if (codes == nullptr || !may_stay_codes(parameter)) return false;
    Codes matrix;
    if (kept != nullptr) {
      if (!key->codes[index]) return false;
      matrix.shape = *key->codes[index];
    } else {
      auto stored = codes->matrix(parameter);
      if (!stored) return stored.error();
      if (*stored == nullptr) return false;
      matrix.rows = *std::move(stored);
      matrix.shape = {matrix.rows->format(), matrix.rows->outputs(), matrix.rows->inputs()};
    }
    if (auto taken = take_codes(parameter, matrix); !taken) return taken.error();
    return true;
  }

  Result<> table(const Parameter& parameter, std::span<const float> values) {
    made.table_rows_ = static_cast<Index>(parameter.shape[0]);
    made.wide_table_ = !format_of(parameter);
    // A device's image of the head is the table itself.
    if (made.wide_table_ && ctx.device != nullptr && decoder.description().tied) return {};
    const std::size_t element = made.wide_table_ ? sizeof(float) : sizeof(kernels::Bf16);
    // In whole floats, as a cache has it.
    const std::size_t bytes = (parameter.elements * element + 3) / 4 * 4;
    if (kept != nullptr) {
      const auto piece = next(bytes);
      if (!piece) return piece.error();
      made.table_ = {*piece, bytes};
      return {};
    }
    made.own_table_ = kernels::AlignedBytes(bytes, ctx.device);
    made.table_ = {made.own_table_.data(), bytes};
    pieces.push_back(made.table_);
    if (made.wide_table_) return put(made.own_table_.data(), values.data(), values.size_bytes());
    std::vector<kernels::Bf16> rounded(values.size());
    must(kernels::to_bf16({ctx.pool}, values, rounded));
    return put(made.own_table_.data(), rounded.data(), rounded.size() * sizeof(kernels::Bf16));
  }

  // `values` are read where nothing is kept.
  Result<> take(const Parameter& parameter, std::span<const float> values) {
    if (parameter.role == Role::embedding) {
      if (auto done = table(parameter, values); !done) return done;
    }
    if (parameter.role == Role::head ||
        (parameter.role == Role::embedding && decoder.description().tied)) {
      auto head = image(parameter, {values.data(), static_cast<Index>(parameter.shape[0]),
                                    static_cast<Index>(parameter.shape[1])});
      if (!head) return head.error();
      made.head_ = *std::move(head);
    }
    if (is_plain(parameter)) return plain(parameter, values.data());
    const auto* const matrix = std::ranges::find(kMatrices, parameter.role, &LayerMatrix::role);
    if (matrix != std::end(kMatrices)) {
      return layer_matrix(parameter, *matrix, by_outputs(parameter, values.data()));
    }
    if (parameter.role != Role::projections) return {};
    const ConstMatrix all = by_outputs(parameter, values.data());
    const Index third = all.rows / 3;
    for (Index i = 0; i < 3; ++i) {
      const float* const from = all.data == nullptr ? nullptr : all.row(i * third);
      auto done = layer_matrix(parameter, kMatrices[i], {from, third, all.columns});
      if (!done) return done;
    }
    return {};
  }

  Result<> take_all(const Source& source) {
    const kernels::FloatBuffer scratch(kept == nullptr ? largest_of(decoder) : 0);
    try {
      if (auto begun = begin(); !begun) return begun;
      std::size_t index = 0;
      for (const Parameter& parameter : decoder.layout().parameters()) {
        const auto stored = take_stored(index++, parameter);
        if (!stored) return stored.error();
        if (*stored) continue;
        std::span<float> values;
        if (kept == nullptr) {
          values = scratch.span().first(parameter.elements);
          if (auto read = source(parameter, values); !read) return read;
        }
        if (auto taken = take(parameter, values); !taken) return taken;
      }
    } catch (const kernels::AllocationFailure& failure) {
      return Error(failure.error()).with_context("weights for serving");
    }
    return {};
  }
};

namespace {

Result<const FormatName*> named(std::string_view format) {
  const FormatName* const found = find_format(format);
  if (found != nullptr) return found;
  return Error{ErrorCode::invalid_argument,
               fmt::format("\"{}\" is no format of weights; there are {}", format,
                           fmt::join(serving_formats(), ", "))};
}

}  // namespace

Result<ServingWeights> ServingWeights::make(const kernels::OpContext& ctx, const Decoder& decoder,
                                            std::string_view format, const Source& source) {
  const auto found = named(format);
  if (!found) return found.error();
  Maker maker{
      .ctx = ctx, .decoder = decoder, .format = **found, .made = {}, .turned = {}, .pieces = {}};
  if (auto taken = maker.take_all(source); !taken) return taken.error();
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
                                            const std::filesystem::path& folder,
                                            const ImageCache& cache) {
  const auto found = named(format);
  if (!found) return found.error();
  const auto stored = StoredParameters::open(folder, decoder);
  if (!stored) return stored.error();
  const Source source = [&](const Parameter& parameter, std::span<float> values) {
    return stored->read(parameter, values);
  };
  const bool own = (*found)->name == kAuto && stored->format().kind != StoredFormat::Kind::plain;
  if (own) {
    TUTTI_LOG_INFO("models", "{}: matrices stay {} codes, as their files have them",
                   folder.string(), to_string(stored->format()));
  }
  Maker maker{.ctx = ctx,
              .decoder = decoder,
              .format = **found,
              .codes = own ? &*stored : nullptr,
              .made = {},
              .turned = {},
              .pieces = {}};
  if (!cache.keeps() || ctx.device != nullptr) {
    if (auto taken = maker.take_all(source); !taken) return taken.error();
    return std::move(maker.made);
  }
  const auto key =
      own ? key_of_codes(ctx, decoder, *stored)
          : key_of_values(ctx, decoder, *stored, (*found)->format ? (*found)->name : "fp32");
  if (!key) return key.error();
  if (auto kept = cache.find(ctx, key->hash)) {
    Maker viewer{.ctx = ctx,
                 .decoder = decoder,
                 .format = **found,
                 .codes = maker.codes,
                 .kept = &*kept,
                 .key = &*key,
                 .made = {},
                 .turned = {},
                 .pieces = {}};
    if (auto taken = viewer.take_all(source)) {
      viewer.made.mapped_ = *std::move(kept);
      return std::move(viewer.made);
    } else {
      TUTTI_LOG_WARNING("models", "images of weights are made anew: {}", taken.error().message);
    }
  }
  if (auto taken = maker.take_all(source); !taken) return taken.error();
  cache.store(ctx, key->hash, maker.pieces);
  return std::move(maker.made);
}

Result<std::uint64_t> ServingWeights::device_bytes(const Decoder& decoder, std::string_view format,
                                                   const std::filesystem::path& folder) {
  const auto found = named(format);
  if (!found) return found.error();
  const std::optional<kernels::WeightFormat> kept = (*found)->format;
  StoredFormat stored;
  if ((*found)->name == kAuto && !folder.empty()) {
    const auto read = read_stored_format(folder);
    if (!read) return read.error();
    stored = *read;
  }
  const bool codes = stored.kind != StoredFormat::Kind::plain;
  const bool tied = decoder.description().tied;
  const bool turned = decoder.layout().order() == WeightOrder::inputs;
  const auto image = [&](const Parameter& parameter) {
    const bool of_layer = parameter.role != Role::embedding && parameter.role != Role::head;
    const auto own = codes && of_layer ? std::optional(format_of(stored)) : kept;
    if (!own) return parameter.elements * sizeof(float);
    const std::size_t outputs = turned && of_layer ? 1 : 0;
    const Index pieces = parameter.role == Role::projections ? 3 : 1;
    return static_cast<std::uint64_t>(pieces) *
           kernels::QuantisedWeight::image_bytes(
               *own, static_cast<Index>(parameter.shape[outputs]) / pieces,
               static_cast<Index>(parameter.shape[1 - outputs]));
  };
  std::uint64_t bytes = 0;
  for (const Parameter& parameter : decoder.layout().parameters()) {
    if (is_plain(parameter)) {
      bytes += parameter.elements * sizeof(float);
    } else if (parameter.role != Role::embedding) {
      bytes += image(parameter);
    } else {
      // The table; and the head's image, which is the table where both are fp32.
      if (tied) bytes += image(parameter);
      if (kept) {
        bytes += (parameter.elements * sizeof(kernels::Bf16) + 63) / 64 * 64;
      } else if (!tied) {
        bytes += parameter.elements * sizeof(float);
      }
    }
  }
  return bytes;
}

std::uint64_t ServingWeights::bytes() const {
  std::uint64_t bytes =
      bytes_of(head_) + table_.size() + static_cast<std::uint64_t>(plain_.size()) * sizeof(float);
  for (const LayerImages& layer : images_) {
    for (const LayerMatrix& matrix : kMatrices) bytes += bytes_of(layer.*matrix.image);
  }
  return bytes;
}

void ServingWeights::look_up(const kernels::OpContext& ctx, std::span<const std::int32_t> tokens,
                             Matrix out) const {
  const bool own = wide_table_ && !table_.empty();
  const float* const table =
      own ? reinterpret_cast<const float*>(table_.data()) : head_.fp32.image();
  must(kernels::embedding_forward(
      ctx, {.table = ConstMatrix(table, table_rows_, out.columns),
            .bf16 = wide_table_ ? nullptr : reinterpret_cast<const kernels::Bf16*>(table_.data()),
            .tokens = tokens,
            .output = out}));
}

}  // namespace tutti::models
