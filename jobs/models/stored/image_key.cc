#include "jobs/models/stored/image_key.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <span>
#include <string>

#include "jobs/models/image_cache.h"
#include "kernels/ops/cpu_path.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "kernels/tensor/buffer.h"

namespace tutti::models {

namespace {

Index largest_of(const Decoder& decoder) {
  std::size_t largest = 0;
  for (const Parameter& parameter : decoder.layout().parameters()) {
    largest = std::max<std::size_t>(largest, parameter.elements);
  }
  return static_cast<Index>(largest);
}

// Says what images hang on, a line a parameter.
struct Teller {
  const kernels::OpContext& ctx;
  const StoredParameters& stored;
  std::span<float> scratch;  // of the largest parameter
  std::string text;

  void how(std::string_view format) {
    text += fmt::format("{} {} {} {}\n", format, kernels::kPackedImageVersion,
                        kernels::kQuantisedImageVersion, kernels::to_string(kernels::cpu_path()));
  }
  void name(const Parameter& parameter) {
    text += fmt::format("{} {}", parameter.name, fmt::join(parameter.shape, "x"));
  }
  void bytes(std::span<const std::byte> of) {
    text += fmt::format(" {}", kernels::to_string(hash_bytes(ctx, of)));
  }
  Result<> values(const Parameter& parameter) {
    const std::span<float> all = scratch.first(parameter.elements);
    if (auto read = stored.read(parameter, all); !read) return read;
    bytes(std::as_bytes(all));
    return {};
  }
  CodesShape codes(const StoredMatrix& matrix) {
    const StoredContent content = matrix.content();
    text += fmt::format(" {} {}", kernels::to_string(matrix.format()), content.packing);
    // Of how many bytes: a hash takes them with zeros behind.
    for (const auto& part : content.bytes) {
      text += fmt::format(" {}", part.size());
      bytes(part);
    }
    return {matrix.format(), matrix.outputs(), matrix.inputs()};
  }
  kernels::Hash128 hash() const { return hash_bytes(ctx, std::as_bytes(std::span(text))); }
};

}  // namespace

bool may_stay_codes(const Parameter& parameter) { return parameter.role != Role::embedding; }

Result<ImageKey> key_of_values(const kernels::OpContext& ctx, const Decoder& decoder,
                               const StoredParameters& stored, std::string_view format) {
  const kernels::FloatBuffer scratch(largest_of(decoder));
  Teller teller{ctx, stored, scratch.span(), {}};
  teller.how(format);
  for (const Parameter& parameter : decoder.layout().parameters()) {
    teller.name(parameter);
    if (auto told = teller.values(parameter); !told) return told.error();
    teller.text += '\n';
  }
  return ImageKey{teller.hash(), {}};
}

Result<ImageKey> key_of_codes(const kernels::OpContext& ctx, const Decoder& decoder,
                              const StoredParameters& stored) {
  const kernels::FloatBuffer scratch(largest_of(decoder));
  Teller teller{ctx, stored, scratch.span(), {}};
  teller.how(fmt::format("codes {}", kStoredRowsVersion));
  ImageKey key;
  for (const Parameter& parameter : decoder.layout().parameters()) {
    teller.name(parameter);
    std::unique_ptr<StoredMatrix> matrix;
    if (may_stay_codes(parameter)) {
      auto opened = stored.matrix(parameter);
      if (!opened) return opened.error();
      matrix = *std::move(opened);
    }
    if (matrix != nullptr) {
      key.codes.emplace_back(teller.codes(*matrix));
    } else {
      // What comes in bf16 stays in bf16.
      teller.text += stored.is_bf16(parameter) ? " bf16" : " fp32";
      if (auto told = teller.values(parameter); !told) return told.error();
      key.codes.emplace_back();
    }
    teller.text += '\n';
  }
  key.hash = teller.hash();
  return key;
}

}  // namespace tutti::models
