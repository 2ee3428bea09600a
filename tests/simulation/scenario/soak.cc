#include "tests/simulation/scenario/soak.h"

#include <fmt/core.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <optional>
#include <thread>

#include "tests/simulation/scenario/runner.h"
#include "tests/simulation/scenario/scenario_file.h"

namespace tutti::simulation {

namespace {

constexpr std::size_t kRarestShown = 20;
// With fewer, chance may well miss a rare path or cell; with so many, nobody makes it any more.
constexpr std::uint64_t kRunsToMeetAll = 2'000;

struct SoakOptions {
  double minutes = 1;
  std::uint64_t seeds = 0;  // this many, whatever time they take; 0: until the minutes are over
  std::uint64_t first = 1;
  unsigned threads = std::max(1U, std::thread::hardware_concurrency());
};

bool parse(const std::vector<std::string>& arguments, SoakOptions& out) {
  for (std::size_t i = 0; i + 1 < arguments.size(); i += 2) {
    const std::string& value = arguments[i + 1];
    if (arguments[i] == "--minutes") {
      out.minutes = std::strtod(value.c_str(), nullptr);
    } else if (arguments[i] == "--seeds") {
      out.seeds = std::strtoull(value.c_str(), nullptr, 10);
    } else if (arguments[i] == "--first") {
      out.first = std::strtoull(value.c_str(), nullptr, 10);
    } else if (arguments[i] == "--threads") {
      out.threads = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
    } else {
      return false;
    }
  }
  return arguments.size() % 2 == 0 && out.threads > 0;
}

// Whether nothing was found: neither broken, nor missing in so many runs.
bool print(const Report& report, double seconds) {
  const Coverage& met = report.coverage;
  std::uint64_t injected = 0;
  for (const auto& [fault, times] : met.faults) injected += times;
  fmt::print("{}\npaths taken:\n", table(met));
  for (const auto& [path, times] : met.reached) {
    fmt::print("{:>12} {:>8} runs  {}\n", times, met.reached_by.at(path), path);
  }
  const auto cells = empty_cells(met);
  const auto paths = unreached(met);
  for (const std::string& cell : cells) fmt::print("finding: never met: {}\n", cell);
  for (const std::string& path : paths) fmt::print("finding: never taken: {}\n", path);
  print_failures(report);
  fmt::print("soak: {} seeds, {:.1f} simulated hours, {} faults, {} events in {:.0f} s: {}\n",
             met.runs, to_seconds(met.simulated) / 3600, injected, met.events, seconds,
             report.failures.empty() ? "all invariants hold"
                                     : fmt::format("{} FAILED", report.failures.size()));
  const bool all_met = cells.empty() && paths.empty();
  return report.failures.empty() && (all_met || met.runs < kRunsToMeetAll);
}

std::vector<ScenarioOptions> load_or_say() {
  auto scenarios = load_scenarios();
  if (scenarios && !scenarios->empty()) return *std::move(scenarios);
  std::fprintf(stderr, "simulate: %s\n",
               scenarios ? "no scenarios" : scenarios.error().message.c_str());
  return {};
}

}  // namespace

int soak(const std::vector<std::string>& arguments) {
  SoakOptions options;
  if (!parse(arguments, options)) {
    std::fputs("usage: soak [--minutes N | --seeds N] [--first SEED] [--threads N]\n", stderr);
    return 2;
  }
  const auto scenarios = load_or_say();
  if (scenarios.empty()) return 2;
  const Instant start = monotonic_now();
  std::uint64_t count = 0;
  const auto next = [&]() -> std::optional<ScenarioOptions> {
    const bool done = options.seeds > 0
                          ? count >= options.seeds
                          : to_seconds(monotonic_now() - start) > options.minutes * 60;
    if (done) return std::nullopt;
    ScenarioOptions out = scenarios[count % scenarios.size()];
    out.seed = options.first + count++ / scenarios.size();
    return out;
  };
  const Report report = run_all(next, options.threads);
  return print(report, to_seconds(monotonic_now() - start)) ? 0 : 1;
}

int cover(const std::vector<std::string>& arguments) {
  SoakOptions options;
  if (!parse(arguments, options)) {
    std::fputs("usage: cover [--first SEED] [--threads N]\n", stderr);
    return 2;
  }
  const auto scenarios = load_or_say();
  if (scenarios.empty()) return 2;
  std::deque<ScenarioOptions> runs;
  for (const ScenarioOptions& scenario : scenarios) {
    for (std::uint32_t i = 0; i < fixed_seeds(scenario); ++i) {
      runs.push_back(scenario);
      runs.back().seed = options.first + i;
    }
  }
  const auto next = [&]() -> std::optional<ScenarioOptions> {
    if (runs.empty()) return std::nullopt;
    const ScenarioOptions out = runs.front();
    runs.pop_front();
    return out;
  };
  const Instant start = monotonic_now();
  const Report report = run_all(next, options.threads);
  const bool sound = print(report, to_seconds(monotonic_now() - start));
  fmt::print("{}", rarest_paths(report.coverage, kRarestShown));
  return sound ? 0 : 1;
}

}  // namespace tutti::simulation
