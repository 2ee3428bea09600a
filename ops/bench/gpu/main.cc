// gpu_bench [--json] [--streams] [--names]: the table of the GPU path on this machine's first GPU;
// 77 without one. --names: what the cases are called, without running any.
#include <fmt/core.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "ops/bench/gpu/cases.h"

namespace {

using namespace tutti::bench::gpu;

void print_json(const std::string& name, const Measured& measured, std::string_view machine) {
  const char* const commit = std::getenv("TUTTI_COMMIT");
  fmt::print(
      R"({{"bench":"gpu","case":"{}","unit":"s","min":{},"p50":{},"p99":{},"n":{},"peer":null,)"
      R"("ratio":null,"share":{:.4f},"of":"{}","machine":"{}","commit":"{}"}})"
      "\n",
      name, measured.at(0.0), measured.at(0.5), measured.at(0.99), measured.seconds.size(),
      measured.share, measured.ceiling, machine, commit != nullptr ? commit : "unknown");
}

int run_all(const std::vector<Case>& cases, bool json) {
  const auto card = Card::open();
  if (!card) {
    fmt::print(stderr, "gpu_bench: {}\n", card.error().message);
    return 77;
  }
  for (const Case& one : cases) {
    const Measured measured = one.run(*card);
    if (json) {
      print_json(one.name, measured, card->training().name());
    } else {
      fmt::print("{:56} {:12.5g} s  {:.2f} of {}\n", one.name, measured.at(0.5), measured.share,
                 measured.ceiling);
    }
    std::fflush(stdout);  // what was measured is kept, whatever comes next
  }
  return 0;
}

}  // namespace

int main(int count, char** values) {
  const auto said = [&](std::string_view word) {
    for (int i = 1; i < count; ++i) {
      if (values[i] == word) return true;
    }
    return false;
  };
  if (said("--streams")) {
    const bool overlap = streams_overlap();
    fmt::print("two streams {}\n", overlap ? "overlap" : "run one after the other");
    return overlap ? 0 : 1;
  }
  std::vector<Case> cases;
  for (const auto& more : {kernel_cases(), training_cases(), serving_cases()}) {
    cases.insert(cases.end(), more.begin(), more.end());
  }
  if (!said("--names")) return run_all(cases, said("--json"));
  for (const Case& one : cases) fmt::print("{}\n", one.name);
  return 0;
}
