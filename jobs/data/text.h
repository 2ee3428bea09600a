// Text files -> a token file and a tokenizer in the job's folder, made once.
//
// Every rank of a job calls this with the same arguments, at the same time or after a restart. The
// first to finish renames its files into place; the bytes are a function of the text and the
// settings, so it does not matter who wins. What is there already is used as it is, so that a job
// keeps its tokens even if the text changes under it.
//
// Files: <folder>/tokenizer.json, <folder>/tokens.npy.
// Errors: not_found (a text file), invalid_argument (empty text, vocabulary larger than the text
// allows, tokenizer with more tokens than the vocabulary), those of the tokenizer file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::data {

struct TextOptions {
  // Files, in order; an end-of-text token follows each, if the tokenizer has one.
  std::vector<std::string> text;
  std::string tokenizer;         // tokenizer.json; empty: trained on the text
  std::uint32_t vocabulary = 0;  // of the model
  std::string folder;            // the job's; made if missing
};

struct TokenizedText {
  std::string tokens;     // path of the token file
  std::string tokenizer;  // path of the tokenizer used, in the folder
};

Result<TokenizedText> tokenize_text(const TextOptions& options);

}  // namespace tutti::data
