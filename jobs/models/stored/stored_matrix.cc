#include "jobs/models/stored/stored_matrix.h"

#include <vector>

namespace tutti::models {

Result<std::unique_ptr<StoredMatrix>> StoredMatrix::open(const SafetensorsReader& reader,
                                                         const StoredFormat& format,
                                                         const WantedMatrix& wanted) {
  auto matrix = open_fp8(reader, format, wanted);
  if (!matrix || *matrix != nullptr) return matrix;
  return open_packed(reader, format, wanted);
}

void StoredMatrix::read_values(Index first, Index count, std::span<float> values) const {
  const auto inputs = static_cast<std::size_t>(inputs_);
  std::vector<std::byte> row(row_bytes());
  for (Index i = 0; i < count; ++i) {
    read_rows(first + i, 1, row);
    const auto read = kernels::dequantise_row(
        format_, row, values.subspan(static_cast<std::size_t>(i) * inputs, inputs));
    TUTTI_ASSERT(read.ok());
  }
}

}  // namespace tutti::models
