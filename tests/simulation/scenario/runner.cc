#include "tests/simulation/scenario/runner.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <mutex>
#include <thread>

#include "tests/simulation/scenario/scenario.h"

namespace tutti::simulation {

namespace {

// What this thread runs, for a handler that may only write.
thread_local char running[1024];

extern "C" void say_what_ran(int) {
  static const char kSays[] = "the simulated code aborted; replay: ";
  const auto put = [](const char* text, std::size_t size) {
    if (::write(STDERR_FILENO, text, size) < 0) return;
  };
  put(kSays, sizeof(kSays) - 1);
  put(running, std::strlen(running));
  put("\n", 1);
  std::signal(SIGABRT, SIG_DFL);
}

}  // namespace

std::string run_one(const ScenarioOptions& options, Coverage& coverage) {
  const std::string replay = replay_command(options);
  std::strncpy(running, replay.c_str(), sizeof(running) - 1);
  std::signal(SIGABRT, say_what_ran);
  Scenario scenario(options);
  const std::optional<std::string> violation = scenario.run();
  coverage.add(scenario.coverage());
  return violation.value_or("");
}

Report run_all(const std::function<std::optional<ScenarioOptions>()>& next, unsigned threads) {
  Report report;
  std::mutex mutex;
  const auto work = [&] {
    Coverage met;
    while (true) {
      std::optional<ScenarioOptions> options;
      {
        const std::lock_guard lock(mutex);
        options = next();
      }
      if (!options) break;
      const std::string violation = run_one(*options, met);
      if (violation.empty()) continue;
      const std::lock_guard lock(mutex);
      report.failures.push_back({violation, replay_command(*options)});
    }
    const std::lock_guard lock(mutex);
    report.coverage.add(met);
  };
  std::vector<std::thread> pool;
  for (unsigned i = 0; i < threads; ++i) pool.emplace_back(work);
  for (std::thread& each : pool) each.join();
  return report;
}

void print_failures(const Report& report) {
  constexpr std::size_t kShown = 20;
  const std::size_t shown = std::min(kShown, report.failures.size());
  for (std::size_t i = 0; i < shown; ++i) {
    fmt::print("{}\n  replay: {}\n", report.failures[i].violation, report.failures[i].replay);
  }
}

Report run_all(std::deque<ScenarioOptions> runs) {
  const auto next = [&]() -> std::optional<ScenarioOptions> {
    if (runs.empty()) return std::nullopt;
    const ScenarioOptions out = runs.front();
    runs.pop_front();
    return out;
  };
  return run_all(next, std::max(1U, std::thread::hardware_concurrency()));
}

}  // namespace tutti::simulation
