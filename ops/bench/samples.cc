#include "ops/bench/samples.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <set>
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
  std::string socket;
  std::set<std::string> cores;  // physical ones: CPUs that share one are one
  while (std::getline(info, line)) {
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string key = line.substr(0, line.find_last_not_of("\t ", colon - 1) + 1);
    const std::string value = line.substr(colon + 2);
    if (key == "model name") name = value;
    if (key == "cpu family") family = value;
    if (key == "model") model = value;
    if (key == "physical id") socket = value;
    if (key == "core id") cores.insert(socket + " " + value);
  }
  const std::size_t count = cores.empty() ? std::thread::hardware_concurrency() : cores.size();
  return fmt::format("{} {}.{}, {} cores", name, family, model, count);
}

std::string quoted(std::string_view text) {
  return text.empty() ? "null" : fmt::format("\"{}\"", text);
}

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "unknown";
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

StolenTime::Jiffies StolenTime::read() {
  // "cpu  user nice system idle iowait irq softirq steal ...", summed over CPUs since the boot.
  constexpr int kSteal = 7;
  std::ifstream stat("/proc/stat");
  std::string name;
  stat >> name;
  Jiffies read;
  double value = 0.0;
  for (int i = 0; i <= kSteal && stat >> value; ++i) {
    read.all += value;
    if (i == kSteal) read.stolen = value;
  }
  return read;
}

double StolenTime::share() const {
  const Jiffies now = read();
  return now.all > begin_.all ? (now.stolen - begin_.stolen) / (now.all - begin_.all) : 0.0;
}

void describe_setting(const Setting& setting) { setting_in_use() = setting; }

std::string place_json() {
  static const std::string kMachine = read_machine();
  const Setting& setting = setting_in_use();
  return fmt::format(
      R"("machine":"{}","path":{},"threads":{},"sources":"{}")", kMachine, quoted(setting.path),
      setting.threads > 0 ? std::to_string(setting.threads) : "null", environment("TUTTI_SOURCES"));
}

std::string where_json() {
  char date[16] = {};
  const std::time_t now = std::time(nullptr);
  std::tm today = {};
  if (gmtime_r(&now, &today) != nullptr) std::strftime(date, sizeof date, "%Y-%m-%d", &today);
  return fmt::format(R"({},"commit":"{}","date":"{}")", place_json(), environment("TUTTI_COMMIT"),
                     date);
}

void print_line(const Line& line) {
  const Samples& ours = *line.ours;
  const double ratio = line.theirs != nullptr ? line.theirs->median() / ours.median() : 0.0;
  fmt::print(
      R"({{"bench":"{}","case":"{}","unit":"us","min":{:.2f},"p50":{:.2f},"p99":{:.2f},"n":{},)"
      R"("peer":{},"ratio":{},"peer_min":{},"peer_p50":{},"peer_n":{},"missing":{},)"
      R"("share":{},"ceiling":{},"gflops":{},"gbps":{},"operands_mb":{},"stolen":{:.3f},{}}})"
      "\n",
      line.bench, line.name, ours.at(0.0) * 1e6, ours.at(0.5) * 1e6, ours.at(0.99) * 1e6,
      ours.seconds.size(), quoted(line.peer), optional(ratio),
      optional(line.theirs != nullptr ? line.theirs->at(0.0) * 1e6 : 0.0),
      optional(line.theirs != nullptr ? line.theirs->median() * 1e6 : 0.0),
      line.theirs != nullptr ? line.theirs->seconds.size() : 0, quoted(line.missing),
      optional(line.share), optional(line.ceiling), optional(line.rate), optional(line.gbps),
      optional(line.operand_bytes * 1e-6), line.stolen, where_json());
  std::fflush(stdout);
}

}  // namespace tutti::bench
