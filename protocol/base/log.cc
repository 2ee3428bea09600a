#include "protocol/base/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <ctime>
#include <string>

#include "protocol/base/clock.h"

namespace tutti {

namespace {

LogLevel level_from_environment() {
  const char* text = std::getenv("TUTTI_LOG");
  const std::string_view name = text == nullptr ? "" : text;
  if (name == "debug") return LogLevel::debug;
  if (name == "warning") return LogLevel::warning;
  if (name == "error") return LogLevel::error;
  return LogLevel::info;
}

// What a build that is not the real thing puts before each message.
const std::string& mark() {
  static const std::string text = [] {
    const char* const set = std::getenv("TUTTI_LOG_MARK");
    return set == nullptr ? std::string() : set + std::string(" ");
  }();
  return text;
}

std::atomic<LogLevel>& lowest_level() {
  static std::atomic<LogLevel> level{level_from_environment()};
  return level;
}

constexpr std::string_view name_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug: return "debug";
    case LogLevel::info: return "info";
    case LogLevel::warning: return "warning";
    case LogLevel::error: return "error";
  }
  return "error";
}

}  // namespace

bool log_enabled(LogLevel level) { return level >= lowest_level().load(std::memory_order_relaxed); }

void set_log_level(LogLevel level) { lowest_level().store(level); }

void write_log(LogLevel level, std::string_view component, std::string_view message) {
  const WallTime now = wall_now();
  const std::time_t seconds = now.unix_ms / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  const std::string line =
      fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z {} {}: {}{}\n", utc.tm_year + 1900,
                  utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                  now.unix_ms % 1000, name_of(level), component, mark(), message);
  // One write keeps lines of several threads and processes whole; a log that cannot be written is
  // dropped.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace tutti
