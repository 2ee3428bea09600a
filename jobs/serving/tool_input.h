// What the offline tools read and run with: token files, text files, threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::serving {

// All tokens of a token file. Errors: those of data::TokenFile; invalid_argument if it is empty.
Result<std::vector<std::uint32_t>> read_tokens(const std::string& path);

// Threads for the tools: `wanted`, or one a core if it is 0; within what a pool takes.
int tool_threads(std::uint32_t wanted);

// "[1, 2, 3]"
std::string json_list(const std::vector<std::uint32_t>& numbers);
std::string json_list(const std::vector<float>& numbers);

}  // namespace tutti::serving
