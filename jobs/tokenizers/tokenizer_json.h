// tokenizer.json, the file format of Hugging Face's tokenizers, for byte-level BPE.
//
// Read: model BPE (merges as "a b" or ["a", "b"]); pre-tokenizer ByteLevel, or a Sequence of Split,
// Digits and ByteLevel; normalizers NFC, NFD, NFKC, NFKD; post-processor ByteLevel or
// TemplateProcessing. What a file asks for beyond that would give other ids, so it is an error and
// never ignored.
//
// Errors: corrupt (not JSON, a part missing or of a wrong kind), unsupported (a part that is
// named).
#pragma once

#include <string>
#include <string_view>

#include "jobs/tokenizers/model.h"
#include "protocol/base/result.h"

namespace tutti::tokenizers {

Result<Model> model_from_json(std::string_view json);

// A model that was read gives its file again, byte for byte; one trained here, a file like
// GPT-2's.
std::string model_to_json(const Model& model);

}  // namespace tutti::tokenizers
