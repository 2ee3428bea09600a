// Reading and writing model directories (decoder.h).
#include <fmt/core.h>

#include "jobs/models/decoder.h"
#include "jobs/models/families/family.h"
#include "jobs/models/safetensors.h"
#include "jobs/models/stored/stored_parameters.h"
#include "protocol/base/file.h"

namespace tutti::models {

using std::filesystem::path;

namespace {

std::span<float> part(std::span<float> arena, const Parameter& parameter) {
  return arena.subspan(parameter.offset, parameter.elements);
}

Result<> write_tensors(const ParameterLayout& layout, std::span<const float> weights,
                       const path& file) {
  std::vector<TensorDeclaration> tensors;
  for (const Parameter& parameter : layout.parameters()) {
    tensors.push_back({parameter.name, TensorType::f32, parameter.shape});
  }
  auto writer = SafetensorsWriter::create(file, tensors);
  if (!writer) return writer.error();
  for (const Parameter& parameter : layout.parameters()) {
    auto written = writer->append(weights.subspan(parameter.offset, parameter.elements));
    if (!written) return written;
  }
  auto finished = writer->finish();
  if (!finished) return finished.error();
  return {};
}

}  // namespace

Result<> read_parameter(const SafetensorsReader& reader, const Decoder& decoder,
                        const Parameter& parameter, std::span<float> values) {
  std::string_view name = parameter.name;
  const std::string_view prefix = find_family(decoder.description().family)->prefix;
  if (!prefix.empty() && name.starts_with(prefix) && reader.find(name) == nullptr) {
    const std::string_view shorter = name.substr(prefix.size());
    if (reader.find(shorter) != nullptr) name = shorter;
  }
  return reader.read(name, parameter.shape, values);
}

Result<> load_weights(const Decoder& decoder, const path& folder, std::span<float> weights) {
  TUTTI_ASSERT(weights.size() == decoder.layout().elements());
  const auto stored = StoredParameters::open(folder, decoder);
  if (!stored) return stored.error();
  for (const Parameter& parameter : decoder.layout().parameters()) {
    auto read = stored->read(parameter, part(weights, parameter));
    if (!read) return read;
  }
  return {};
}

Result<Decoder> load_decoder(const path& folder) {
  auto description = read_config(folder);
  if (!description) return description.error();
  auto decoder = Decoder::create(*description);
  if (!decoder) return Error(decoder.error()).with_context(folder.string());
  return decoder;
}

Result<LoadedModel> load_model(const path& folder) {
  auto decoder = load_decoder(folder);
  if (!decoder) return decoder.error();
  kernels::FloatBuffer weights(static_cast<kernels::Index>(decoder->layout().elements()));
  if (auto loaded = load_weights(*decoder, folder, weights.span()); !loaded) {
    return loaded.error();
  }
  return LoadedModel{*std::move(decoder), std::move(weights)};
}

Result<> save_model(const Decoder& decoder, std::span<const float> weights, const path& folder) {
  TUTTI_ASSERT(weights.size() == decoder.layout().elements());
  // Under a private name first: a reader sees the old file or the new one.
  const path written_to = folder / ".model.safetensors.new";
  std::error_code failed;
  std::filesystem::remove(written_to, failed);
  auto written = write_tensors(decoder.layout(), weights, written_to);
  if (!written) {
    std::filesystem::remove(written_to, failed);
    return written;
  }
  std::filesystem::rename(written_to, folder / "model.safetensors", failed);
  if (failed) {
    return errno_error("cannot rename " + written_to.string(), failed.value());
  }
  auto config =
      write_file_atomically(folder / "config.json", to_config_json(decoder.description()));
  if (!config) return config;
  return sync_folder(folder);
}

}  // namespace tutti::models
