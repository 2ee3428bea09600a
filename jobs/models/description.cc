#include "jobs/models/description.h"

#include <fmt/core.h>

#include <boost/json.hpp>
#include <cmath>

#include "jobs/models/families/family.h"
#include "jobs/models/stored/stored_format.h"
#include "protocol/base/file.h"

namespace tutti::models {

namespace json = boost::json;

namespace {

// Far above any real model, and small enough that products of two fit in 64 bits with room.
constexpr std::uint32_t kLayersMax = 4096;
constexpr std::uint32_t kWidthMax = 1 << 20;
constexpr std::uint32_t kHeadDimMax = 256;
constexpr std::uint32_t kVocabularyMax = 1 << 24;
constexpr std::uint32_t kVocabularyMultipleMax = 1 << 16;
constexpr std::uint32_t kPositionsMax = 1 << 24;
constexpr std::uint64_t kConfigBytesMax = 1 << 20;

Result<> check_range(std::string_view field, std::uint32_t value, std::uint32_t most) {
  if (value >= 1 && value <= most) return {};
  return Error{ErrorCode::invalid_argument,
               fmt::format("model: {} is {}; it must be from 1 to {}", field, value, most)};
}

Result<> check_heads(const DecoderDescription& d) {
  if (d.heads % d.kv_heads != 0) {
    return Error{
        ErrorCode::invalid_argument,
        fmt::format("model: {} heads cannot share {} key/value heads evenly", d.heads, d.kv_heads)};
  }
  // The attention kernels take heads in vectors of 8.
  if (d.head_dim % 8 != 0) {
    return Error{ErrorCode::unsupported,
                 fmt::format("model: heads of {} elements are not supported; a multiple of 8 up to "
                             "{} is",
                             d.head_dim, kHeadDimMax)};
  }
  if (std::uint64_t{d.heads} * d.head_dim > kWidthMax) {
    return Error{ErrorCode::invalid_argument, fmt::format("model: {} heads of {} are wider than {}",
                                                          d.heads, d.head_dim, kWidthMax)};
  }
  return {};
}

// What the passes cannot put together.
Result<> check_parts(const DecoderDescription& d) {
  if (d.projections == Projections::fused && d.kv_heads != d.heads) {
    return Error{ErrorCode::unsupported,
                 fmt::format("model: {} heads with {} key/value heads; in family `{}` query, key "
                             "and value are one matrix of equal parts",
                             d.heads, d.kv_heads, d.family)};
  }
  if (d.inner == FeedForward::gated && d.activation != kernels::Activation::silu) {
    return Error{ErrorCode::unsupported, "model: gates other than SiLU's are not supported"};
  }
  return {};
}

Result<> check_reals(const DecoderDescription& d) {
  const auto wrong = [](std::string_view field, double value) {
    return Error{ErrorCode::invalid_argument, fmt::format("model: {} cannot be {}", field, value)};
  };
  if (!(d.norm_epsilon > 0 && d.norm_epsilon < 1)) return wrong("norm epsilon", d.norm_epsilon);
  if (!(d.rope_theta >= 1 && d.rope_theta <= 1e12)) return wrong("rope theta", d.rope_theta);
  if (!(d.init_deviation > 0 && d.init_deviation < 1e3)) {
    return wrong("init deviation", d.init_deviation);
  }
  const RopeScaling& scaling = d.rope_scaling;
  if (scaling.kind == RopeScaling::Kind::none) return {};
  if (!(scaling.factor >= 1 && scaling.factor <= 1e6)) return wrong("rope factor", scaling.factor);
  if (!(scaling.low_frequency_factor > 0 && std::isfinite(scaling.high_frequency_factor) &&
        scaling.high_frequency_factor > scaling.low_frequency_factor)) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("model: rope frequency factors {} (low) and {} (high) are not "
                             "ascending and positive",
                             scaling.low_frequency_factor, scaling.high_frequency_factor)};
  }
  return check_range("rope original positions", scaling.original_positions, kPositionsMax);
}

std::string known_families() {
  std::string names;
  for (const Family& family : families()) {
    if (!names.empty()) names += ", ";
    names += family.name;
  }
  return names;
}

}  // namespace

Result<> check(const DecoderDescription& d) {
  if (find_family(d.family) == nullptr) {
    return Error{ErrorCode::unsupported,
                 fmt::format("model: unknown family `{}` (known: {})", d.family, known_families())};
  }
  for (const auto& checked :
       {check_range("layers", d.layers, kLayersMax), check_range("width", d.width, kWidthMax),
        check_range("heads", d.heads, kWidthMax), check_range("kv_heads", d.kv_heads, kWidthMax),
        check_range("head_dim", d.head_dim, kHeadDimMax),
        check_range("feed_forward", d.feed_forward, kWidthMax),
        check_range("vocabulary", d.vocabulary, kVocabularyMax),
        check_range("vocabulary multiple", d.vocabulary_multiple, kVocabularyMultipleMax),
        check_range("positions_max", d.positions_max, kPositionsMax)}) {
    if (!checked) return checked;
  }
  if (auto heads = check_heads(d); !heads) return heads;
  if (auto parts = check_parts(d); !parts) return parts;
  return check_reals(d);
}

Result<DecoderDescription> describe(const spec::ModelSpec& model, std::uint32_t positions) {
  const Family* const family = find_family(model.family);
  if (family == nullptr) {
    return Error{ErrorCode::unsupported, fmt::format("model: unknown family `{}` (known: {})",
                                                     model.family, known_families())};
  }
  DecoderDescription d = family->parts();
  d.family = model.family;
  d.layers = model.layers;
  d.width = model.width;
  d.heads = model.heads;
  d.kv_heads = model.kv_heads == 0 ? model.heads : model.kv_heads;
  if (d.heads == 0 || d.width % d.heads != 0) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("model: width {} is not a multiple of heads {}", d.width, d.heads)};
  }
  d.head_dim = d.width / d.heads;
  // Three matrices of a gated layer have the parameters of a plain one's two of 4 widths.
  const std::uint32_t usual =
      d.inner == FeedForward::gated ? (d.width * 8 / 3 + 63) / 64 * 64 : d.width * 4;
  d.feed_forward = model.feed_forward != 0 ? model.feed_forward : usual;
  d.vocabulary = model.vocabulary;
  d.positions_max = positions;
  d.norm_epsilon = model.norm_epsilon;
  d.rope_theta = model.rope_theta;
  d.tied = model.tied;
  if (auto checked = check(d); !checked) return checked.error();
  return d;
}

Result<DecoderDescription> parse_config(std::string_view text) {
  boost::system::error_code failed;
  const json::value config = json::parse(text, failed);
  if (failed || !config.is_object()) {
    return Error{ErrorCode::corrupt, failed ? "not JSON: " + failed.message() : "not an object"};
  }
  const json::value* type = config.get_object().if_contains("model_type");
  if (type == nullptr || !type->is_string()) {
    return Error{ErrorCode::invalid_argument, "`model_type` is missing"};
  }
  for (const Family& family : families()) {
    if (std::string_view(type->get_string()) != family.model_type) continue;
    auto description = family.read(config.get_object());
    if (!description) return description;
    const auto stored = read_stored_format(config.get_object());
    if (!stored) return stored.error();
    if (auto checked = check(*description); !checked) return checked.error();
    return description;
  }
  return Error{ErrorCode::unsupported,
               fmt::format("model_type `{}` is not supported (known: {})",
                           std::string_view(type->get_string()), known_families())};
}

Result<DecoderDescription> read_config(const std::filesystem::path& model_folder) {
  const auto path = model_folder / "config.json";
  auto text = read_file(path, kConfigBytesMax);
  if (!text) return text.error();
  auto description = parse_config(*text);
  if (!description) return Error(description.error()).with_context(path.string());
  return description;
}

std::string to_config_json(const DecoderDescription& description) {
  const Family* family = find_family(description.family);
  TUTTI_ASSERT(family != nullptr);
  json::object config;
  family->write(description, config);
  // One key a line: people read this file.
  std::string text = "{\n";
  for (const auto& [key, value] : config) {
    if (text.size() > 2) text += ",\n";
    text += fmt::format("  {}: {}", json::serialize(json::string(key)), json::serialize(value));
  }
  return text + "\n}\n";
}

}  // namespace tutti::models
