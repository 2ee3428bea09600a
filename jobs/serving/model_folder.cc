#include "jobs/serving/model_folder.h"

#include <utility>

namespace tutti::serving {

Result<ServedModel> load_served_model(const std::filesystem::path& folder) {
  Result<models::LoadedModel> model = models::load_model(folder);
  if (!model) return model.error();
  ServedModel served{.model = std::move(*model), .tokenizer = std::nullopt};
  const std::filesystem::path path = folder / "tokenizer.json";
  if (!std::filesystem::exists(path)) return served;
  Result<tokenizers::Tokenizer> tokenizer = tokenizers::Tokenizer::load(path.string());
  if (!tokenizer) return tokenizer.error();
  served.tokenizer = std::move(*tokenizer);
  return served;
}

}  // namespace tutti::serving
