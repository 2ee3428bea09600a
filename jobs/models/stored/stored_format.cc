#include "jobs/models/stored/stored_format.h"

#include <fmt/core.h>

#include "jobs/models/families/config_reader.h"
#include "protocol/base/file.h"

namespace tutti::models {

namespace json = boost::json;

namespace {

constexpr std::string_view kInstead =
    "; a model without quantization_config can be served in few bits by --weights (serve.weights)";

Error unsupported(std::string what) {
  return Error{ErrorCode::unsupported,
               fmt::format("quantization_config: {}{}", std::move(what), kInstead)};
}

Result<StoredFormat> read_fp8(ConfigReader& config) {
  StoredFormat format{.kind = StoredFormat::Kind::fp8};
  const std::vector<std::int64_t> block = config.tokens("weight_block_size");
  if (block.empty()) return format;
  constexpr std::int64_t kMost = 1 << 20;
  if (block.size() != 2 || block[0] < 1 || block[1] < 1 || block[0] > kMost || block[1] > kMost) {
    return unsupported("weight_block_size is not two numbers, of outputs and of inputs");
  }
  format.block_outputs = static_cast<std::uint32_t>(block[0]);
  format.block_inputs = static_cast<std::uint32_t>(block[1]);
  return format;
}

// Each group says what its layers' weights are; all are fp8, or none of it is read.
Result<StoredFormat> read_compressed(ConfigReader& config) {
  const std::string kind = config.text_or("format", "");
  if (kind != "float-quantized" && kind != "naive-quantized") {
    return unsupported(
        fmt::format("compressed-tensors of format `{}` is not supported (float-quantized)", kind));
  }
  const json::object* const groups = config.object("config_groups");
  if (groups == nullptr) return unsupported("compressed-tensors without config_groups");
  StoredFormat format{.kind = StoredFormat::Kind::fp8};
  for (const auto& [name, value] : *groups) {
    if (!value.is_object()) return unsupported("config_groups holds more than objects");
    ConfigReader group(value.get_object());
    const json::object* const weights = group.object("weights");
    if (weights == nullptr) continue;
    ConfigReader own(*weights);
    const std::uint32_t bits = own.count("num_bits");
    const std::string type = own.text_or("type", "int");
    if (bits != 8 || type != "float") {
      return unsupported(
          fmt::format("weights of {} bits of type `{}` in {} are not supported (8 "
                      "of `float`)",
                      bits, type, std::string_view(name)));
    }
    const std::vector<std::int64_t> block = own.tokens("block_structure");
    if (block.size() == 2 && block[0] > 0 && block[1] > 0) {
      format.block_outputs = static_cast<std::uint32_t>(block[0]);
      format.block_inputs = static_cast<std::uint32_t>(block[1]);
    }
    if (!own.result()) return own.result().error();
  }
  return format;
}

Result<> read_group(const std::vector<std::int64_t>& group, StoredFormat& format) {
  if (group.size() != 1 || group[0] == 0 || group[0] < -1 || group[0] > 1 << 20) {
    return unsupported("group_size is no number of inputs, nor -1 for all");
  }
  format.group = group[0] == -1 ? 0 : static_cast<std::uint32_t>(group[0]);
  return {};
}

Result<StoredFormat> read_gptq(ConfigReader& config) {
  StoredFormat format{.kind = StoredFormat::Kind::gptq};
  format.bits = config.count("bits");
  const std::vector<std::int64_t> group = config.tokens("group_size");
  format.act_order = config.flag_or("desc_act", false);
  const std::string layout = config.text_or("checkpoint_format", config.text_or("format", "gptq"));
  if (!config.result()) return config.result().error();
  if (format.bits != 4 && format.bits != 8) {
    return unsupported(fmt::format("gptq of {} bits is not supported (4, 8)", format.bits));
  }
  if (auto read = read_group(group, format); !read) return read.error();
  if (layout != "gptq" && layout != "gptq_v2") {
    return unsupported(
        fmt::format("gptq as `{}` lays it out is not supported (gptq, gptq_v2)", layout));
  }
  format.zeros_less_one = layout == "gptq";
  return format;
}

// Two generations of its tools have names of their own for the numbers.
Result<StoredFormat> read_awq(ConfigReader& config) {
  StoredFormat format{.kind = StoredFormat::Kind::awq};
  format.bits = config.count(config.has("w_bit") ? "w_bit" : "bits");
  const std::vector<std::int64_t> group =
      config.tokens(config.has("q_group_size") ? "q_group_size" : "group_size");
  const std::string version = config.text_or("version", "gemm");
  const bool zeros = config.flag_or("zero_point", true);
  if (!config.result()) return config.result().error();
  if (format.bits != 4) {
    return unsupported(fmt::format("awq of {} bits is not supported (4)", format.bits));
  }
  if (auto read = read_group(group, format); !read) return read.error();
  if (version != "gemm" && version != "GEMM") {
    return unsupported(fmt::format("awq of version `{}` is not supported (gemm)", version));
  }
  if (!zeros) return unsupported("awq without zero_point is not supported");
  return format;
}

}  // namespace

Result<StoredFormat> read_stored_format(const json::object& object) {
  ConfigReader whole(object);
  const json::object* const found = whole.object("quantization_config");
  if (!whole.result()) return whole.result().error();
  if (found == nullptr) return StoredFormat{};
  ConfigReader config(*found);
  const std::string method = config.text_or("quant_method", "");
  Result<StoredFormat> format = [&]() -> Result<StoredFormat> {
    if (method == "fp8" || method == "fbgemm_fp8") return read_fp8(config);
    if (method == "compressed-tensors") return read_compressed(config);
    if (method == "gptq") return read_gptq(config);
    if (method == "awq") return read_awq(config);
    return unsupported(fmt::format(
        "quant_method `{}` is not supported (fp8, fbgemm_fp8, compressed-tensors, gptq, awq)",
        method));
  }();
  if (!config.result()) return Error(config.result().error()).with_context("quantization_config");
  return format;
}

Result<StoredFormat> read_stored_format(const std::filesystem::path& folder) {
  const auto path = folder / "config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return StoredFormat{};
  const auto text = read_file(path);
  if (!text) return text.error();
  boost::system::error_code failed;
  const json::value config = json::parse(*text, failed);
  if (failed || !config.is_object()) {
    return Error{ErrorCode::corrupt, path.string() + ": not a JSON object"};
  }
  auto format = read_stored_format(config.get_object());
  if (!format) return Error(format.error()).with_context(path.string());
  return format;
}

std::string to_string(const StoredFormat& format) {
  switch (format.kind) {
    case StoredFormat::Kind::plain: return "plain";
    case StoredFormat::Kind::fp8: return "fp8";
    case StoredFormat::Kind::gptq: return fmt::format("gptq of {} bits", format.bits);
    case StoredFormat::Kind::awq: return fmt::format("awq of {} bits", format.bits);
  }
  return "unknown";
}

kernels::WeightFormat format_of(const StoredFormat& format) {
  using kernels::WeightFormat;
  TUTTI_ASSERT(format.kind != StoredFormat::Kind::plain);
  if (format.kind == StoredFormat::Kind::fp8) return WeightFormat::fp8_e4m3;
  if (format.bits == 4)
    return format.act_order ? WeightFormat::int4_order : WeightFormat::int4_zero;
  return format.act_order ? WeightFormat::int8_order : WeightFormat::int8_zero;
}

}  // namespace tutti::models
