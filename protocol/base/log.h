// Logging: one line to standard error, `time level component: message`.
//
//   TUTTI_LOG_INFO("worker", "rank {} of job {} exited with {}", rank, job, code);
//
// TUTTI_LOG=debug|info|warning|error: the lowest level shown (default info); TUTTI_LOG_MARK: what
// each message begins with (the emulated GPU says so). Any thread; one write per line.
#pragma once

#include <fmt/core.h>

#include <string_view>

namespace tutti {

enum class LogLevel { debug, info, warning, error };

bool log_enabled(LogLevel level);
void set_log_level(LogLevel level);
void write_log(LogLevel level, std::string_view component, std::string_view message);

}  // namespace tutti

#define TUTTI_LOG_AT(level, component, ...)                             \
  do {                                                                  \
    if (::tutti::log_enabled(level)) {                                  \
      ::tutti::write_log(level, component, ::fmt::format(__VA_ARGS__)); \
    }                                                                   \
  } while (false)
#define TUTTI_LOG_DEBUG(component, ...) \
  TUTTI_LOG_AT(::tutti::LogLevel::debug, component, __VA_ARGS__)
#define TUTTI_LOG_INFO(component, ...) TUTTI_LOG_AT(::tutti::LogLevel::info, component, __VA_ARGS__)
#define TUTTI_LOG_WARNING(component, ...) \
  TUTTI_LOG_AT(::tutti::LogLevel::warning, component, __VA_ARGS__)
#define TUTTI_LOG_ERROR(component, ...) \
  TUTTI_LOG_AT(::tutti::LogLevel::error, component, __VA_ARGS__)
