// `tutti tokenize`: text files to a token file, and back.
#pragma once

#include <span>
#include <string>

namespace tutti::tokenizers {

// Arguments after `tokenize`. Gives the exit code: 0, or 2 with one line on standard error.
int run_tokenize_tool(std::span<const std::string> args);

}  // namespace tutti::tokenizers
