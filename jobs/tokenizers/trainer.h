// Learns a byte-level BPE tokenizer from text: the most frequent pair of neighbours becomes a
// token, again and again (Sennrich et al. 2016), as Hugging Face's BpeTrainer does, with the same
// result.
//
// Works on the different pre-tokens and their counts, not on the text; keeps the counts of all
// pairs and where they occur, so that a merge touches only the words that have it; the most
// frequent pair comes from a heap. Ties go to the lower left id, then the lower right one: the
// result is a function of the bytes of the text and of the settings.
//
// Errors: invalid_argument (no text; a vocabulary too small for the bytes and special tokens; one
// larger than the text allows, with the size that it does allow).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/tokenizers/tokenizer.h"
#include "protocol/base/result.h"

namespace tutti::tokenizers {

inline constexpr std::string_view kEndOfText = "<|endoftext|>";

struct TrainerOptions {
  std::uint32_t vocabulary = 0;  // special tokens and bytes included
  std::vector<std::string> special = {std::string(kEndOfText)};  // get the first ids
};

// `texts` are cut separately: no pre-token runs from one into the next.
Result<Tokenizer> train_tokenizer(std::span<const std::string_view> texts,
                                  const TrainerOptions& options);

}  // namespace tutti::tokenizers
