// A matrix that a checkpoint keeps in few bits, as rows of a format of weight_format.h: its values
// by dequantise_row, its image by pack_rows, so that a model served from codes has the bits of the
// same model dequantised to fp32.
//
// Ownership: views the reader's mapping. Threads: read by any. Errors: unsupported (a variant that
// no format holds), corrupt, invalid_argument (tensors whose shapes do not fit together); each
// names the tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/models/safetensors.h"
#include "jobs/models/stored/stored_format.h"
#include "kernels/ops/weights/weight_format.h"

namespace tutti::models {

using kernels::Index;

// Of what read_rows makes of a matrix's content: kept images hang on it (image_key.h).
inline constexpr std::uint32_t kStoredRowsVersion = 1;

// A matrix as the model names it.
struct WantedMatrix {
  std::string_view tensor;  // ends in `.weight`
  Index outputs = 0;
  Index inputs = 0;
  bool turned = false;  // a plain tensor of it has a row an input
};

// What a matrix's rows are made from, besides their format and shape.
struct StoredContent {
  std::string packing;
  std::vector<std::span<const std::byte>> bytes;  // of the files and of the matrix itself
};

class StoredMatrix {
 public:
  virtual ~StoredMatrix() = default;

  // Null: it is a plain tensor, or there is none.
  static Result<std::unique_ptr<StoredMatrix>> open(const SafetensorsReader& reader,
                                                    const StoredFormat& format,
                                                    const WantedMatrix& wanted);

  kernels::WeightFormat format() const { return format_; }
  Index outputs() const { return outputs_; }
  Index inputs() const { return inputs_; }
  std::size_t row_bytes() const { return kernels::row_bytes(format_, inputs_); }

  // Two of one format, shape and content have the same rows.
  virtual StoredContent content() const = 0;
  // Rows of the outputs from `first` on, one after the other.
  virtual void read_rows(Index first, Index count, std::span<std::byte> rows) const = 0;
  // Their values, [count, inputs].
  void read_values(Index first, Index count, std::span<float> values) const;

 protected:
  StoredMatrix(kernels::WeightFormat format, Index outputs, Index inputs)
      : format_(format), outputs_(outputs), inputs_(inputs) {}

 private:
  kernels::WeightFormat format_;
  Index outputs_;
  Index inputs_;
};

// The kinds: null where the tensors are not of it.
Result<std::unique_ptr<StoredMatrix>> open_fp8(const SafetensorsReader& reader,
                                               const StoredFormat& format,
                                               const WantedMatrix& wanted);
Result<std::unique_ptr<StoredMatrix>> open_packed(const SafetensorsReader& reader,
                                                  const StoredFormat& format,
                                                  const WantedMatrix& wanted);

}  // namespace tutti::models
