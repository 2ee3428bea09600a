#include "tests/simulation/scenario/sweep.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <thread>

#include "tests/simulation/scenario/runner.h"
#include "tests/simulation/scenario/scenario.h"
#include "tests/simulation/scenario/scenario_file.h"

namespace tutti::simulation {

namespace {

constexpr std::uint64_t kTold = 50;  // lines of progress

int refuse(const std::string& message) {
  fmt::print(stderr, "simulate: {}\n", message);
  return 2;
}

}  // namespace

std::vector<Strike> everyone(const ScenarioOptions& options, std::uint64_t event) {
  std::vector<Strike> out{{.victim = Victim::coordinator_before_sync, .event = event},
                          {.victim = Victim::coordinator_after_sync, .event = event}};
  for (std::uint32_t number = 0; number < options.workers; ++number) {
    for (const Victim victim : {Victim::worker, Victim::binary, Victim::rank}) {
      out.push_back({.victim = victim, .number = number, .event = event});
    }
  }
  return out;
}

Result<std::uint64_t> working_events(const ScenarioOptions& options) {
  Scenario undisturbed(options);
  if (const auto violation = undisturbed.run()) return Error{ErrorCode::internal, *violation};
  return undisturbed.last_working_event();
}

std::deque<ScenarioOptions> sweep_runs(const ScenarioOptions& options, std::uint64_t first,
                                       std::uint64_t last, std::uint64_t apart) {
  std::deque<ScenarioOptions> out;
  for (std::uint64_t event = first; event <= last; event += apart) {
    for (const Strike& strike : everyone(options, event)) {
      out.push_back(options);
      out.back().strikes.push_back(strike);
    }
  }
  return out;
}

int sweep(const std::vector<std::string>& arguments) {
  if (arguments.empty()) return refuse("sweep needs a scenario; `simulate list` has them");
  auto options = load_scenario(arguments[0]);
  if (!options) return refuse(options.error().message);
  std::uint64_t apart = 1;
  std::uint64_t first = 1;
  unsigned threads = std::max(1U, std::thread::hardware_concurrency());
  for (std::size_t i = 1; i + 1 < arguments.size(); i += 2) {
    const std::uint64_t value = std::strtoull(arguments[i + 1].c_str(), nullptr, 10);
    if (arguments[i] == "--apart" && value > 0) {
      apart = value;
    } else if (arguments[i] == "--from" && value > 0) {
      first = value;
    } else if (arguments[i] == "--seed") {
      options->seed = value;
    } else if (arguments[i] == "--threads" && value > 0) {
      threads = static_cast<unsigned>(value);
    } else {
      return refuse("sweep does not take " + arguments[i] + ' ' + arguments[i + 1]);
    }
  }
  if (arguments.size() % 2 == 0) return refuse("a value is missing for " + arguments.back());
  const Result<std::uint64_t> last = working_events(*options);
  if (!last) {
    fmt::print("{}: undisturbed: {}\n", options->name, last.error().message);
    return 1;
  }
  const std::uint64_t per_line = std::max<std::uint64_t>(1, *last / kTold);
  std::deque<ScenarioOptions> ready;
  std::uint64_t event = first;
  std::uint64_t runs = 0;
  const auto next = [&]() -> std::optional<ScenarioOptions> {
    if (ready.empty() && event <= *last) {
      ready = sweep_runs(*options, event, event, 1);
      if ((event - first) % (per_line * apart) < apart) {
        fmt::print(stderr, "{}: event {} of {}\n", options->name, event, *last);
      }
      event += apart;
    }
    if (ready.empty()) return std::nullopt;
    const ScenarioOptions out = ready.front();
    ready.pop_front();
    ++runs;
    return out;
  };
  const Report report = run_all(next, threads);
  print_failures(report);
  fmt::print("sweep: {}, seed {}: {} events, {} runs: {}\n", options->name, options->seed, *last,
             runs,
             report.failures.empty() ? "all invariants hold"
                                     : fmt::format("{} FAILED", report.failures.size()));
  return report.failures.empty() ? 0 : 1;
}

}  // namespace tutti::simulation
