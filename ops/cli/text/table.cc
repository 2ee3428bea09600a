#include "ops/cli/text/table.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <ctime>

namespace tutti::cli {

namespace {

constexpr std::string_view kReset = "\x1b[0m";
constexpr std::string_view kBold = "\x1b[1m";

struct WordColour {
  std::string_view word;
  std::string_view escape;
};

constexpr WordColour kColours[] = {
    {"running", "\x1b[32m"},    {"ready", "\x1b[32m"},       {"done", "\x1b[32m"},
    {"equal", "\x1b[32m"},      {"recovered", "\x1b[32m"},   {"finished", "\x1b[32m"},
    {"failed", "\x1b[31m"},     {"lost", "\x1b[31m"},        {"DIFFERENT", "\x1b[31m"},
    {"rank_lost", "\x1b[31m"},  {"worker_lost", "\x1b[31m"}, {"checkpoint_failed", "\x1b[31m"},
    {"queued", "\x1b[33m"},     {"placed", "\x1b[33m"},      {"starting", "\x1b[33m"},
    {"recovering", "\x1b[33m"}, {"stopping", "\x1b[33m"},    {"suspect", "\x1b[33m"},
    {"cancelled", "\x1b[33m"},  {"aborted", "\x1b[33m"},     {"draining", "\x1b[33m"},
    {"drained", "\x1b[33m"},    {"quarantined", "\x1b[31m"}, {"expected", "\x1b[33m"},
    {"held", "\x1b[32m"},       {"VIOLATED", "\x1b[31m"},
};

}  // namespace

std::size_t width_of(std::string_view utf8) {
  return static_cast<std::size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U;
  }));
}

std::string shortened(std::string_view utf8, std::size_t width) {
  std::size_t at = 0;
  while (at < utf8.size()) {
    const bool begins = (static_cast<unsigned char>(utf8[at]) & 0xc0U) != 0x80U;
    if (begins && width-- == 0) break;
    ++at;
  }
  return std::string(utf8.substr(0, at));
}

std::string paint_word(std::string_view word, Paint paint) {
  if (paint == Paint::coloured) {
    for (const WordColour& colour : kColours) {
      if (colour.word == word) return fmt::format("{}{}{}", colour.escape, word, kReset);
    }
  }
  return std::string(word);
}

std::string Table::print(Paint paint) const {
  std::vector<std::size_t> widths;
  for (const Column& column : columns_) widths.push_back(width_of(column.title));
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string text;
  const auto add_line = [&](const auto& cell_of, const auto& painted) {
    std::string line;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const std::string_view cell = cell_of(i);
      const std::string padding(widths[i] - width_of(cell), ' ');
      if (i > 0) line += "  ";
      const bool right = columns_[i].align == Align::right;
      line += right ? padding + painted(cell) : painted(cell) + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  };
  add_line([&](std::size_t i) { return columns_[i].title; },
           [&](std::string_view cell) {
             return paint == Paint::coloured ? fmt::format("{}{}{}", kBold, cell, kReset)
                                             : std::string(cell);
           });
  for (const auto& row : rows_) {
    add_line([&](std::size_t i) { return i < row.size() ? std::string_view(row[i]) : ""; },
             [&](std::string_view cell) { return paint_word(cell, paint); });
  }
  return text;
}

std::string print_duration(double seconds) {
  if (!(seconds >= 0)) return "-";
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 3'600) return fmt::format("{} m {} s", whole / 60, whole % 60);
  if (whole < 86'400) return fmt::format("{} h {} m", whole / 3'600, whole % 3'600 / 60);
  return fmt::format("{} d {} h", whole / 86'400, whole % 86'400 / 3'600);
}

std::string print_count(double count) {
  if (count < 999.5) return fmt::format("{:.0f}", count);
  if (count < 999'950) return fmt::format("{:.1f}k", count / 1e3);
  if (count < 999'950'000) return fmt::format("{:.1f}M", count / 1e6);
  return fmt::format("{:.1f}G", count / 1e9);
}

std::string print_bytes_short(std::uint64_t bytes) {
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return value == std::floor(value) ? fmt::format("{:.0f} {}", value, kUnits[unit])
                                    : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string print_clock(std::int64_t unix_ms) {
  const auto seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm local{};
  ::localtime_r(&seconds, &local);
  return fmt::format("{:02}:{:02}:{:02}.{:03}", local.tm_hour, local.tm_min, local.tm_sec,
                     unix_ms % 1000);
}

std::string print_date(std::int64_t unix_ms) {
  const auto seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm local{};
  ::localtime_r(&seconds, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M", &local);
  return text;
}

}  // namespace tutti::cli
