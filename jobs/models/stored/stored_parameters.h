// The parameters of a model in a folder, whichever way it keeps them: plain tensors, or matrices in
// few bits (stored_matrix.h).
//
// Ownership: owns the files' mappings; the decoder outlives it. Threads: reading from any. Errors:
// those of SafetensorsReader, read_stored_format and StoredMatrix.
#pragma once

#include <filesystem>
#include <memory>
#include <span>

#include "jobs/models/decoder.h"
#include "jobs/models/safetensors.h"
#include "jobs/models/stored/stored_matrix.h"

namespace tutti::models {

class StoredParameters {
 public:
  static Result<StoredParameters> open(const std::filesystem::path& folder, const Decoder& decoder);

  const StoredFormat& format() const { return format_; }
  // Null: it is a plain tensor, or there is none.
  Result<std::unique_ptr<StoredMatrix>> matrix(const Parameter& parameter) const;
  // Whether it is a plain tensor of bf16.
  bool is_bf16(const Parameter& parameter) const;
  // The values, in the parameter's own order; codes as the numbers that they stand for.
  Result<> read(const Parameter& parameter, std::span<float> values) const;

 private:
  StoredParameters(SafetensorsReader files, const StoredFormat& format, const Decoder& decoder)
      : files_(std::move(files)), format_(format), decoder_(&decoder) {}
  bool is_turned(const Parameter& parameter) const;

  SafetensorsReader files_;
  StoredFormat format_;
  const Decoder* decoder_;
};

}  // namespace tutti::models
