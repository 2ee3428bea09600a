// `tutti tokenizer train`: learns a tokenizer from text files.
#pragma once

#include <span>
#include <string>

namespace tutti::tokenizers {

// Arguments after `tokenizer`. Gives the exit code: 0, or 2 with one line on standard error.
int run_tokenizer_tool(std::span<const std::string> args);

}  // namespace tutti::tokenizers
