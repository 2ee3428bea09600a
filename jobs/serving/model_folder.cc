#include "jobs/serving/model_folder.h"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <utility>

#include "protocol/base/file.h"

namespace tutti::serving {
namespace {

namespace json = boost::json;

// `eos_token_id` of generation_config.json: an id, a list of ids, or not there.
Result<std::vector<std::int32_t>> read_end_tokens(const std::filesystem::path& path) {
  std::vector<std::int32_t> ids;
  if (!std::filesystem::exists(path)) return ids;
  const Result<std::string> text = read_file(path);
  if (!text) return text.error();
  boost::system::error_code error;
  const json::value file = json::parse(*text, error);
  const json::object* object = error ? nullptr : file.if_object();
  if (object == nullptr) return Error{ErrorCode::corrupt, path.string() + " is not a JSON object"};
  const json::value* value = object->if_contains("eos_token_id");
  if (value == nullptr || value->is_null()) return ids;
  const json::array one(1, *value);
  for (const json::value& each : value->is_array() ? value->get_array() : one) {
    const std::int64_t* id = each.if_int64();
    if (id == nullptr || *id < 0 || *id > tokenizers::kTokenIdMax) {
      return Error{ErrorCode::corrupt, path.string() + ": eos_token_id is not a token id"};
    }
    ids.push_back(static_cast<std::int32_t>(*id));
  }
  return ids;
}

}  // namespace

Result<ServedModel> load_served_model(const kernels::OpContext& ctx,
                                      const std::filesystem::path& folder,
                                      std::string_view format) {
  auto decoder = models::load_decoder(folder);
  if (!decoder) return decoder.error();
  auto images = models::ServingWeights::load(ctx, *decoder, format, folder,
                                             models::ImageCache::from_environment());
  if (!images) return images.error();
  ServedModel served{.decoder = *std::move(decoder),
                     .images = *std::move(images),
                     .tokenizer = std::nullopt,
                     .end_tokens = {}};
  Result<std::vector<std::int32_t>> end_tokens = read_end_tokens(folder / "generation_config.json");
  if (!end_tokens) return end_tokens.error();
  served.end_tokens = std::move(*end_tokens);
  const std::filesystem::path path = folder / "tokenizer.json";
  if (!std::filesystem::exists(path)) return served;
  Result<tokenizers::Tokenizer> tokenizer = tokenizers::Tokenizer::load(path.string());
  if (!tokenizer) return tokenizer.error();
  served.tokenizer = std::move(*tokenizer);
  return served;
}

}  // namespace tutti::serving
