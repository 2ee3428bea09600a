#include "ops/bench/samples.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

namespace tutti::bench {

namespace {

Setting& setting_in_use() {
  static Setting setting;
  return setting;
}

// Virtual machines hide the name of their CPU ("AMD EPYC"), its family and model they tell.
std::string read_machine() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  std::string name = "unknown";
  std::string family = "?";
  std::string model = "?";
  while (std::getline(info, line) && !line.empty()) {  // the first CPU
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string key = line.substr(0, line.find_last_not_of("\t ", colon - 1) + 1);
    if (key == "model name") name = line.substr(colon + 2);
    if (key == "cpu family") family = line.substr(colon + 2);
    if (key == "model") model = line.substr(colon + 2);
  }
  return fmt::format("{} {}.{}, {} cores", name, family, model,
                     std::thread::hardware_concurrency());
}

std::string quoted(std::string_view text) {
  return text.empty() ? "null" : fmt::format("\"{}\"", text);
}

std::string optional(double value) {
  if (value <= 0.0) return "null";
  return value < 0.01 ? fmt::format("{:.6f}", value) : fmt::format("{:.3f}", value);
}

}  // namespace

void Samples::finish() { std::sort(seconds.begin(), seconds.end()); }

double Samples::at(double quantile) const {
  const auto last = static_cast<double>(seconds.size() - 1);
  return seconds[static_cast<std::size_t>(quantile * last + 0.5)];
}

bool settled(const std::vector<Samples>& samples) {
  return std::ranges::all_of(samples, [](Samples s) {
    s.finish();
    // Of a normal distribution: a deviation is 0.74 of the quartiles' distance, and the median's
    // standard error 1.25 deviations over the root of the count.
    const double deviation = 0.74 * (s.at(0.75) - s.at(0.25));
    return 1.25 * deviation < 0.005 * s.median() * std::sqrt(static_cast<double>(s.seconds.size()));
  });
}

double disturbance(const std::vector<Samples>& samples) {
  double most = 1.0;
  for (const Samples& s : samples) most = std::max(most, s.median() / s.at(0.0));
  return most;
}

double now_seconds(Clock clock) {
  timespec time = {};
  clock_gettime(clock == Clock::thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

void describe_setting(const Setting& setting) { setting_in_use() = setting; }

std::string where_json() {
  static const std::string kMachine = read_machine();
  const char* const commit = std::getenv("TUTTI_COMMIT");
  const Setting& setting = setting_in_use();
  return fmt::format(R"("machine":"{}","path":{},"threads":{},"commit":"{}")", kMachine,
                     quoted(setting.path),
                     setting.threads > 0 ? std::to_string(setting.threads) : "null",
                     commit != nullptr ? commit : "unknown");
}

void print_line(const Line& line) {
  const Samples& ours = *line.ours;
  const double ratio = line.theirs != nullptr ? line.theirs->median() / ours.median() : 0.0;
  fmt::print(
      R"({{"bench":"{}","case":"{}","unit":"us","min":{:.2f},"p50":{:.2f},"p99":{:.2f},"n":{},)"
      R"("peer":{},"ratio":{},"share":{},"gflops":{},"gbps":{},"operands_mb":{},{}}})"
      "\n",
      line.bench, line.name, ours.at(0.0) * 1e6, ours.at(0.5) * 1e6, ours.at(0.99) * 1e6,
      ours.seconds.size(), quoted(line.peer), optional(ratio), optional(line.share),
      optional(line.rate), optional(line.gbps), optional(line.operand_bytes * 1e-6), where_json());
  std::fflush(stdout);
}

}  // namespace tutti::bench
