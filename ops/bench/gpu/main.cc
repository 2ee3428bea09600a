// gpu_bench [--json] [--streams] [--names] [--small] [--only=kernels|training|serving]: the table
// of the GPU path on this machine's first GPU, or a part of it; 77 without one. --names: what the
// cases are called, without running any. --small: runs each once in tiny shapes and names it,
// without a time, which would say nothing. Which algorithm the library's products have is logged as
// they are chosen (products.h).
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

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

enum class Form { table, json, names };

int run_all(const std::vector<Case>& cases, Form form) {
  const auto card = Card::open();
  if (!card) {
    fmt::print(stderr, "gpu_bench: {}\n", card.error().message);
    return 77;
  }
  for (const Case& one : cases) {
    const Measured measured = one.run(*card);
    if (form == Form::names) {
      fmt::print("{}\n", one.name);
    } else if (form == Form::json) {
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
  struct Part {
    std::string_view option;
    std::vector<Case> (*cases)();
  };
  constexpr Part kParts[] = {{"--only=kernels", kernel_cases},
                             {"--only=training", training_cases},
                             {"--only=serving", serving_cases}};
  const bool whole =
      std::ranges::none_of(kParts, [&](const Part& part) { return said(part.option); });
  std::vector<Case> cases;
  for (const Part& part : kParts) {
    if (!whole && !said(part.option)) continue;
    const auto more = part.cases();
    cases.insert(cases.end(), more.begin(), more.end());
  }
  if (said("--small")) {
    set_extent(Extent::small);
    return run_all(cases, Form::names);
  }
  if (!said("--names")) return run_all(cases, said("--json") ? Form::json : Form::table);
  for (const Case& one : cases) fmt::print("{}\n", one.name);
  return 0;
}
