// The tokenizer's side of ops/bench/tokenizer: does what a line on standard input asks, and answers
// with the seconds that it took, so that the script can take turns with a peer.
//
//   bench_tokenizer TEXTFILE VOCABULARY        lines: train | encode | decode | save F
#include <fmt/core.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "jobs/tokenizers/trainer.h"
#include "protocol/base/file.h"

namespace {

using tutti::tokenizers::TokenId;

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

int fail(const tutti::Error& error) {
  fmt::print(stderr, "bench_tokenizer: {}\n", error.message);
  return 2;
}

}  // namespace

int main(int count, char** values) {
  if (count != 3) {
    fmt::print(stderr, "usage: bench_tokenizer TEXTFILE VOCABULARY\n");
    return 2;
  }
  const auto text = tutti::read_file(values[1]);
  if (!text) return fail(text.error());
  const std::string_view view = *text;
  tutti::tokenizers::TrainerOptions options;
  options.vocabulary = static_cast<std::uint32_t>(std::strtoul(values[2], nullptr, 10));
  auto tokenizer = tutti::tokenizers::train_tokenizer({&view, 1}, options);
  if (!tokenizer) return fail(tokenizer.error());
  std::vector<TokenId> ids = tokenizer->encode(view);
  std::string decoded;
  std::string line;
  while (std::getline(std::cin, line)) {
    double seconds = 0;
    if (line == "train") {
      seconds = seconds_of([&] {
        tokenizer = tutti::tokenizers::train_tokenizer({&view, 1}, options);
      });
    } else if (line == "encode") {
      seconds = seconds_of([&] { ids = tokenizer->encode(view); });
    } else if (line == "decode") {
      seconds = seconds_of([&] { decoded = tokenizer->decode(ids); });
    } else if (line.starts_with("save ")) {
      if (const auto saved = tutti::write_file_atomically(line.substr(5), tokenizer->to_json());
          !saved) {
        return fail(saved.error());
      }
    }
    fmt::print("{:.9f} {}\n", seconds, ids.size());
    std::fflush(stdout);
  }
}
