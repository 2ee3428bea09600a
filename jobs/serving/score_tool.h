// `tutti score MODEL`: log-probabilities of a text's tokens and its perplexity, without a cluster.
#pragma once

#include <span>
#include <string>

namespace tutti::serving {

// Arguments after `score`. Gives the exit code: 0, or 2 with one line on standard error.
int run_score_tool(std::span<const std::string> args);

}  // namespace tutti::serving
