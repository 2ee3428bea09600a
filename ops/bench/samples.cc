#include "ops/bench/samples.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

namespace tutti::bench {

namespace {

std::string& machine_is() {
  static std::string text;
  return text;
}

std::string read_machine() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    if (line.rfind("model name", 0) != 0) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) {
      return fmt::format("{}, {} cores", line.substr(colon + 2),
                         std::thread::hardware_concurrency());
    }
  }
  return "unknown";
}

std::string machine() {
  static const std::string kRead = read_machine();
  return kRead + machine_is();
}

std::string optional(double value) { return value > 0.0 ? fmt::format("{:.3f}", value) : "null"; }

}  // namespace

void Samples::finish() { std::sort(seconds.begin(), seconds.end()); }

double Samples::at(double quantile) const {
  const auto last = static_cast<double>(seconds.size() - 1);
  return seconds[static_cast<std::size_t>(quantile * last + 0.5)];
}

double now_seconds(Clock clock) {
  timespec time = {};
  clock_gettime(clock == Clock::thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

void describe_machine(const std::string& what) { machine_is() = ", " + what; }

void print_line(const Line& line) {
  const char* const commit = std::getenv("TUTTI_COMMIT");
  const Samples& ours = *line.ours;
  const double ratio = line.theirs != nullptr ? line.theirs->median() / ours.median() : 0.0;
  fmt::print(
      R"({{"bench":"{}","case":"{}","unit":"us","min":{:.2f},"p50":{:.2f},"p99":{:.2f},"n":{},)"
      R"("peer":{},"ratio":{},"share":{},"gflops":{},"machine":"{}","commit":"{}"}})"
      "\n",
      line.bench, line.name, ours.at(0.0) * 1e6, ours.at(0.5) * 1e6, ours.at(0.99) * 1e6,
      ours.seconds.size(), line.peer.empty() ? "null" : fmt::format("\"{}\"", line.peer),
      optional(ratio), optional(line.share), optional(line.rate), machine(),
      commit != nullptr ? commit : "unknown");
  std::fflush(stdout);
}

}  // namespace tutti::bench
