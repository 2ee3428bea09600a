#include "jobs/models/stored/stored_parameters.h"

#include <string_view>
#include <vector>

#include "jobs/models/families/family.h"

namespace tutti::models {

Result<StoredParameters> StoredParameters::open(const std::filesystem::path& folder,
                                                const Decoder& decoder) {
  auto files = SafetensorsReader::open_folder(folder);
  if (!files) return files.error();
  const auto format = read_stored_format(folder);
  if (!format) return format.error();
  return StoredParameters(*std::move(files), *format, decoder);
}

// Whether a row of it is an input.
bool StoredParameters::is_turned(const Parameter& parameter) const {
  return decoder_->layout().order() == WeightOrder::inputs && parameter.role != Role::embedding &&
         parameter.role != Role::position_embedding && parameter.role != Role::head;
}

Result<std::unique_ptr<StoredMatrix>> StoredParameters::matrix(const Parameter& parameter) const {
  if (parameter.shape.size() != 2) return std::unique_ptr<StoredMatrix>();
  const bool turned = is_turned(parameter);
  WantedMatrix wanted{.tensor = parameter.name,
                      .outputs = static_cast<Index>(parameter.shape[turned ? 1 : 0]),
                      .inputs = static_cast<Index>(parameter.shape[turned ? 0 : 1]),
                      .turned = turned};
  auto found = StoredMatrix::open(files_, format_, wanted);
  // By the shorter name that the family's older files have.
  const std::string_view prefix = find_family(decoder_->description().family)->prefix;
  if (!found || *found != nullptr || prefix.empty() || !wanted.tensor.starts_with(prefix)) {
    return found;
  }
  wanted.tensor.remove_prefix(prefix.size());
  return StoredMatrix::open(files_, format_, wanted);
}

bool StoredParameters::is_bf16(const Parameter& parameter) const {
  const TensorView* const tensor = files_.find(parameter.name);
  return tensor != nullptr && tensor->type == TensorType::bf16;
}

Result<> StoredParameters::read(const Parameter& parameter, std::span<float> values) const {
  const auto stored = matrix(parameter);
  if (!stored) return stored.error();
  if (*stored == nullptr) return read_parameter(files_, *decoder_, parameter, values);
  const StoredMatrix& codes = **stored;
  if (!is_turned(parameter)) {
    codes.read_values(0, codes.outputs(), values);
    return {};
  }
  std::vector<float> row(static_cast<std::size_t>(codes.inputs()));
  const auto outputs = static_cast<std::size_t>(codes.outputs());
  for (std::size_t output = 0; output < outputs; ++output) {
    codes.read_values(static_cast<Index>(output), 1, row);
    for (std::size_t k = 0; k < row.size(); ++k) values[k * outputs + output] = row[k];
  }
  return {};
}

}  // namespace tutti::models
